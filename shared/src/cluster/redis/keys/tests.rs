use std::collections::BTreeSet;

use super::*;
use crate::protocol::ChannelName;

fn topic(name: &str) -> Topic {
    Topic::new(&AppId::from("shop"), &ChannelName::parse(name, 200).unwrap())
}

#[test]
fn channels_are_distributed_over_all_partitions() {
    let keys = Keys::new("carillon", 64);
    let partitions: BTreeSet<u32> = (0..1000).map(|n| keys.partition(&topic(&format!("news-{n:03}")))).collect();
    assert_eq!(partitions.len(), 64);
    assert!(partitions.iter().all(|partition| *partition < 64));
}

#[test]
fn the_partition_of_a_channel_never_changes() {
    // Nodes of different versions must agree. Other numbers would change the keys of running clusters.
    let keys = Keys::new("carillon", 64);
    let found = ["news", "presence-room", "private-user.1"].map(|name| keys.partition(&topic(name)));
    assert_eq!(found, [43, 1, 41]);
}

#[test]
fn all_keys_of_a_channel_share_a_slot() {
    let keys = Keys::new("live", 8);
    let channel = keys.channel(&topic("presence-room"));
    assert_eq!(keys.topic(&topic("presence-room")), channel.topic());
    let tag = |key: &str| key[key.find('{').unwrap()..=key.find('}').unwrap()].to_owned();
    let keys = [channel.members(), channel.member_nodes(), channel.meta(), channel.subscription_counts()];
    for key in keys.iter().chain(&[channel.cached_event(), channel.tombstone("n"), channel.topic()]) {
        assert!(key.starts_with("live:{"), "{key}");
        assert_eq!(tag(key), tag(&channel.topic()));
    }
}

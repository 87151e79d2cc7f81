use std::collections::BTreeMap;

use super::*;

fn plan(channels: usize, events_per_channel: u64, batch: usize) -> Plan {
    Plan { channels, events_per_channel, batch, rate: 100.0, data_bytes: 0, first_sequence: 0 }
}

/// The sequence numbers of each channel in the order in which one sender sends them.
fn sent(share: Share) -> BTreeMap<usize, Vec<u64>> {
    let mut sent: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for planned in share.batches().flatten() {
        sent.entry(planned.channel).or_default().push(planned.sequence);
    }
    sent
}

#[test]
fn one_channel_gets_its_events_in_order_and_in_batches() {
    let share = plan(1, 25, 10).share(0, 1);
    assert_eq!(share.batches().map(|batch| batch.len()).collect::<Vec<_>>(), [10, 10, 5]);
    assert_eq!(sent(share)[&0], (0..25).collect::<Vec<_>>());
}

#[test]
fn every_channel_belongs_to_one_sender_and_gets_every_event() {
    for (channels, senders) in [(2_000, 4), (7, 3), (3, 4), (1, 1)] {
        let plan = plan(channels, 5, 10);
        let mut all = BTreeMap::new();
        for sender in 0..senders {
            for (channel, sequences) in sent(plan.share(sender, senders)) {
                assert_eq!(sequences, (0..5).collect::<Vec<_>>());
                assert!(all.insert(channel, sender).is_none(), "channel {channel} has two senders");
            }
        }
        assert_eq!(all.len(), channels);
    }
}

#[test]
fn the_rates_of_all_senders_add_up() {
    let plan = plan(7, 5, 10);
    let sum: f64 = (0..3).map(|sender| plan.share(sender, 3).requests_per_second()).sum();
    assert!((sum - 10.0).abs() < 1e-9, "{sum}");
}

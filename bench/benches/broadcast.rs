//! Measures a broadcast to all subscribers of a channel without system calls: Carillon's own cost of a delivery.

use criterion::{Criterion, Throughput};
use gateway::benchmark::Broadcast;
use gateway::websocket::writer;
use shared::app::App;
use shared::protocol::{ChannelName, ServerFrame};
use shared::serve::descriptors;

/// The number of events per burst in the second case.
const BURST: u64 = 10;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    descriptors::raise_limit().expect("the limit of file descriptors can be raised");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts");
    let _entered = runtime.enter();
    let app: App =
        serde_json::from_str(r#"{"id":"app-id","key":"app-key","secret":"app-secret"}"#).expect("the app is valid");
    let channel = ChannelName::parse("orders", 200).expect("the channel name is valid");
    let data = "x".repeat(100);
    let event = ServerFrame::Event { channel: "orders", name: "shipped", data: &data, user_id: None };
    let frame = writer::text(event.encode().as_bytes());

    let mut group = criterion.benchmark_group("broadcast");
    for subscribers in [1_000_usize, 10_000] {
        let mut broadcast = Broadcast::new(app.clone(), channel.clone(), subscribers, frame.clone())
            .expect("there are enough file descriptors");
        for events in [1, BURST] {
            group.throughput(Throughput::Elements(events * subscribers as u64));
            group.bench_function(format!("{subscribers}x{events}"), |bencher| {
                bencher.iter(|| {
                    for _ in 0..events {
                        assert_eq!(broadcast.append(), subscribers);
                    }
                    broadcast.forget();
                });
            });
        }
    }
    group.finish();
}

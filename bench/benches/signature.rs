//! Measures the verification of signatures, which happens once per request and once per subscription.

use std::hint::black_box;

use criterion::Criterion;
use shared::app::App;
use shared::auth::request::signed_query;
use shared::auth::{SignedQuery, sign_channel, verify_channel};
use shared::protocol::{ChannelName, SocketId};

const PATH: &str = "/apps/app-id/events";
const NOW_S: u64 = 1_800_000_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let app: App =
        serde_json::from_str(r#"{"id":"app-id","key":"app-key","secret":"app-secret"}"#).expect("the app is valid");
    request(&mut criterion, &app);
    channel(&mut criterion, &app);
    criterion.final_summary();
}

/// Measures the verification of an HTTP API request: the signature of the query, then the digest of the body.
fn request(criterion: &mut Criterion, app: &App) {
    let mut group = criterion.benchmark_group("verify_request");
    for bytes in [100, 1_500, 10_000] {
        let body = format!(r#"{{"name":"tick","channel":"orders.42","data":"{}"}}"#, "x".repeat(bytes));
        let query = signed_query(app, "POST", PATH, &[], body.as_bytes(), NOW_S);
        group.bench_function(bytes.to_string(), |bencher| {
            bencher.iter(|| {
                let query = SignedQuery::parse(black_box(&query));
                query.verify_head(app, "POST", PATH, NOW_S).expect("the signature is valid");
                query.verify_body(black_box(body.as_bytes())).expect("the digest of the body is valid");
            });
        });
    }
    group.finish();
}

/// Measures the verification of a subscription's signature.
fn channel(criterion: &mut Criterion, app: &App) {
    let socket_id: SocketId = "1234.5678".parse().expect("the socket id is valid");
    let member = r#"{"user_id":"1","user_info":{"name":"Ana"}}"#;
    let mut group = criterion.benchmark_group("verify_channel");
    for (name, data) in [("private-room", None), ("presence-room", Some(member))] {
        let channel = ChannelName::parse(name, 200).expect("the channel name is valid");
        let auth = sign_channel(app, socket_id, &channel, data);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                verify_channel(app, socket_id, &channel, data, Some(black_box(&auth))).expect("the signature is valid")
            });
        });
    }
    group.finish();
}

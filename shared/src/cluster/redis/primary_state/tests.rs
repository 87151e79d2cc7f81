use futures_util::FutureExt;

use super::*;
use crate::serve::telemetry::metrics::Registry;

#[tokio::test]
async fn events_are_accepted_or_rejected_after_the_first_reply_of_the_server() {
    let primary = || PrimaryState::new(Metrics::new(&Registry::new(), true));
    let (accepted, refused) = (primary(), primary());
    assert!(accepted.verdict_known().now_or_never().is_none() && refused.verdict_known().now_or_never().is_none());
    accepted.accepted_a_write(accepted.generation());
    accepted.verdict_known().await;
    assert!(accepted.accepts_events());
    refused.refused(Refusal::OutOfMemory, refused.generation(), "OOM");
    refused.verdict_known().await;
    assert!(!refused.accepts_events());
    accepted.unreachable();
    accepted.verdict_known().await;
    assert!(accepted.accepts_events(), "a publish shows whether the server is back");
}

use std::sync::mpsc;
use std::time::Instant;

use super::*;

#[test]
fn a_shard_ends_although_a_task_still_blocks() {
    const BLOCKS: Duration = Duration::from_secs(30);
    let (release, released) = mpsc::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let began = Instant::now();
    run_to_end(runtime, async move {
        let (enter, entered) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let _ = enter.send(());
            let _ = released.recv_timeout(BLOCKS);
        });
        entered.await.unwrap();
    });
    assert!(began.elapsed() < BLOCKS / 2, "{:?}", began.elapsed());
    drop(release);
}

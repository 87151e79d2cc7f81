//! Events to many subscribers of one channel, against the floor, in alternation.

use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carillon::client::{Sender, ServerUrl};
use clap::Args;
use serde_json::json;
use shared::app::App;

use crate::floor::Floor;
use crate::process;
use crate::subscribers::{Handshake, Subscribers, Tally};
use crate::{Target, payload};

/// What every scenario publishes on, and as what.
pub(crate) const CHANNEL: &str = "bench";
/// The event's name.
pub(crate) const EVENT: &str = "tick";

/// Nothing arriving for this long ends a run: what has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Events per second; 0 publishes as fast as the server answers.
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// Events per request, as a batch.
    #[arg(long, default_value_t = 1)]
    burst: u64,
    #[arg(long, default_value_t = 1000)]
    events: u64,
    /// Bytes of an event's data; 100 makes a frame of 156 bytes.
    #[arg(long, default_value_t = 100)]
    data_bytes: usize,
    /// Runs of each side; medians are reported.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

struct Run {
    cpu_us_per_delivery: f64,
    deliveries_per_s: f64,
    tally: Tally,
}

impl Fanout {
    pub(crate) fn run(self) -> Result<()> {
        let (mut server, mut floor) = (Vec::new(), Vec::new());
        for run in 1..=self.runs {
            floor.push(self.run_floor()?);
            server.push(self.run_server()?);
            eprintln!(
                "run {run}: floor {:.3} us, server {:.3} us per delivery",
                floor[run - 1].cpu_us_per_delivery,
                server[run - 1].cpu_us_per_delivery
            );
        }
        let cost = |runs: &[Run]| median(runs.iter().map(|run| run.cpu_us_per_delivery));
        let speed = |runs: &[Run]| median(runs.iter().map(|run| run.deliveries_per_s));
        let ratio = median(
            server.iter().zip(&floor).map(|(server, floor)| server.cpu_us_per_delivery / floor.cpu_us_per_delivery),
        );
        println!(
            "fanout: {} subscribers, {} events ({} per request, {}), data of {} bytes, median of {} runs",
            self.subscribers,
            self.events,
            self.burst,
            if self.rate == 0 { "full speed".into() } else { format!("{}/s", self.rate) },
            self.data_bytes,
            self.runs
        );
        println!("  floor   {:>8.3} us CPU per delivery  {:>10.0} deliveries/s", cost(&floor), speed(&floor));
        println!("  server  {:>8.3} us CPU per delivery  {:>10.0} deliveries/s", cost(&server), speed(&server));
        println!("  ratio   {ratio:>8.3}");
        let sum = |pick: fn(&Tally) -> u64| server.iter().map(|run| pick(&run.tally)).sum::<u64>();
        println!(
            "  lost {}  doubled or out of order {}  closed {}",
            sum(|tally| tally.lost),
            sum(|tally| tally.repeated),
            sum(|tally| tally.closed)
        );
        Ok(())
    }

    fn run_floor(&self) -> Result<Run> {
        let (mut child, port) = Floor::start(self.subscribers, self.rate, self.burst, self.events, self.data_bytes)?;
        let pids = [child.id()];
        let mut subscribers = Subscribers::connect(port, self.subscribers, "", CHANNEL, Handshake::None)?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        let (before, started) = (process::cpu(&pids)?, Instant::now());
        stdin.write_all(b"go\n")?;
        let tally = subscribers.receive(self.events, PATIENCE)?;
        let run = self.measured(tally, started, process::cpu(&pids)? - before);
        drop(stdin);
        ensure!(child.wait()?.success(), "the floor failed");
        Ok(run)
    }

    fn run_server(&self) -> Result<Run> {
        let Target { port, pids, app_key, .. } = &self.target;
        let mut subscribers = Subscribers::connect(*port, self.subscribers, app_key, CHANNEL, Handshake::WebSocket)?;
        let (before, started) = (process::cpu(pids)?, Instant::now());
        let publishing = self.publish()?;
        let tally = subscribers.receive(self.events, PATIENCE)?;
        let run = self.measured(tally, started, process::cpu(pids)? - before);
        publishing.recv().context("the publisher ended early")??;
        Ok(run)
    }

    fn measured(&self, tally: Tally, started: Instant, cpu: Duration) -> Run {
        let deliveries = tally.deliveries.max(1) as f64;
        Run {
            cpu_us_per_delivery: cpu.as_secs_f64() * 1e6 / deliveries,
            deliveries_per_s: deliveries / started.elapsed().as_secs_f64(),
            tally,
        }
    }

    /// Publishes from a thread of its own; the answer comes when all is accepted.
    fn publish(&self) -> Result<mpsc::Receiver<Result<()>>> {
        let Target { port, app_id, app_key, app_secret, .. } = &self.target;
        let app: App = serde_json::from_value(json!({ "id": app_id, "key": app_key, "secret": app_secret }))?;
        let url = ServerUrl::new("127.0.0.1", *port, "");
        let (rate, burst, events, data_bytes) = (self.rate, self.burst, self.events, self.data_bytes);
        let (done, answer) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let result = runtime.map_err(Into::into).and_then(|runtime| {
                let mut sender = Sender::new(url, app);
                runtime.block_on(publish_all(&mut sender, rate, burst, events, data_bytes))
            });
            // Nobody waits any more when the measurement failed.
            let _ = done.send(result);
        });
        Ok(answer)
    }
}

async fn publish_all(sender: &mut Sender, rate: u64, burst: u64, events: u64, data_bytes: usize) -> Result<()> {
    let started = tokio::time::Instant::now();
    let mut sequence = 0;
    while sequence < events {
        let batch: Vec<_> = (sequence..(sequence + burst).min(events))
            .map(|sequence| json!({ "name": EVENT, "channel": CHANNEL, "data": payload::data(sequence, data_bytes) }))
            .collect();
        sequence += burst;
        let reply = match batch.as_slice() {
            [one] => sender.post("/events", one).await?,
            many => sender.post("/batch_events", &json!({ "batch": many })).await?,
        };
        ensure!(reply.status.is_success(), "publish refused: {reply:?}");
        if rate > 0 {
            tokio::time::sleep_until(started + Duration::from_secs_f64(sequence as f64 / rate as f64)).await;
        }
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

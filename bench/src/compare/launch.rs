//! Starts servers for a measurement, waits until they work, and ends them.
//!
//! A start program is told free ports by variables: `GATEWAY_PORTS`, as many as there are gateways, `API_PORT`,
//! `REDIS_PORT`, and `METRICS_PORTS`, as many as gateways. It stays until it gets SIGTERM, and ends what it started.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::server::Server;
use crate::clock;
use crate::process::descendants;
use crate::publisher::{Sending, sleep_until};
use crate::scenario::{Fanout, Scenario};
use crate::started;
use crate::subject::{Subject, Target};

/// How long a server may take until it delivers.
const START_NS: u64 = 60_000_000_000;
/// How long it may take to end.
const STOP_NS: u64 = 15_000_000_000;
/// Between two looks.
const PAUSE_NS: u64 = 50_000_000;

/// A server that runs for one measurement.
pub(crate) struct Launched {
    pub(crate) subject: Subject,
    program: Option<Program>,
}

/// A start program.
struct Program {
    child: Child,
    log: PathBuf,
}

impl Launched {
    /// Starts a server, unless it runs already, and waits until an event reaches a socket on each of its gateways.
    pub(crate) fn start(server: &Server) -> Result<Self> {
        let Some(start) = &server.start else {
            let Server { ws, api, pids, app, .. } = server.clone();
            let target = Target { ws, api, pids, metrics: Vec::new(), credentials: app };
            return Ok(Self { subject: Subject::server(&server.name, target)?, program: None });
        };
        let ports = free_ports(2 * server.gateways + 2)?;
        let (gateways, others) = ports.split_at(server.gateways);
        let (metrics, others) = others.split_at(server.gateways);
        let log = std::env::temp_dir().join(format!("bench-{}-{}.log", server.name, std::process::id()));
        let output = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
        let child = Command::new(start)
            .env("GATEWAY_PORTS", words(gateways))
            .env("METRICS_PORTS", words(metrics))
            .env("API_PORT", others[0].to_string())
            .env("REDIS_PORT", others[1].to_string())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", start.display()))?;
        started::add(child.id());
        let mut program = Program { child, log };
        let api = if server.separate_api { addresses(&others[..1]) } else { addresses(gateways) };
        let target = Target {
            ws: addresses(gateways),
            api,
            pids: Vec::new(),
            metrics: if server.metrics { addresses(metrics) } else { Vec::new() },
            credentials: server.app.clone(),
        };
        let mut subject = Subject::server(&server.name, target.clone())?;
        program.wait_until_working(&subject, &target)?;
        subject.pids = descendants(program.child.id());
        Ok(Self { subject, program: Some(program) })
    }

    /// Ends it, if it was started here.
    pub(crate) fn stop(mut self) -> Result<()> {
        match self.program.take() {
            Some(mut program) => program.stop(),
            None => Ok(()),
        }
    }
}

impl Program {
    fn wait_until_working(&mut self, subject: &Subject, target: &Target) -> Result<()> {
        let until_ns = clock::now_ns() + START_NS;
        let mut last = None;
        while clock::now_ns() < until_ns {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", subject.name, self.log_end());
            }
            let listening = target.ws.iter().chain(&target.api).chain(&target.metrics);
            if listening.into_iter().all(|address| TcpStream::connect(address).is_ok()) {
                match probe(target.ws.len()).run(subject) {
                    Ok(measurement) if measurement.is_clean() => return Ok(()),
                    Ok(measurement) => last = Some(format!("{:?}", measurement.figures)),
                    Err(error) => last = Some(format!("{error:#}")),
                }
            }
            sleep_until(clock::now_ns() + PAUSE_NS);
        }
        bail!("{} did not work in time: {}\n{}", subject.name, last.unwrap_or_default(), self.log_end())
    }

    fn stop(&mut self) -> Result<()> {
        let started = descendants(self.child.id());
        started::signal(self.child.id(), Signal::TERM);
        let until_ns = clock::now_ns() + STOP_NS;
        while clock::now_ns() < until_ns {
            if self.child.try_wait()?.is_some() {
                // The log is of use only when something fails.
                let _ = fs::remove_file(&self.log);
                return Ok(());
            }
            sleep_until(clock::now_ns() + PAUSE_NS);
        }
        for pid in started {
            started::signal(pid, Signal::KILL);
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn log_end(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Nobody is left to hear of it.
            let _ = self.stop();
        }
        started::remove(self.child.id());
    }
}

/// A socket on each gateway, and a few events that all of them must get.
fn probe(gateways: usize) -> Scenario {
    let sending = Sending::default();
    Scenario::Fanout(Fanout { subscribers: gateways, rate: 100.0, events: 5, data_bytes: 40, sending })
}

/// Ports that are free now.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<std::io::Result<_>>()?;
    Ok(listeners.iter().map(|listener| listener.local_addr().map(|it| it.port())).collect::<std::io::Result<_>>()?)
}

fn words(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ")
}

fn addresses(ports: &[u16]) -> Vec<SocketAddr> {
    ports.iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).collect()
}

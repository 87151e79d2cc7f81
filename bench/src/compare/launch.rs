//! Starts servers for a measurement, waits until they deliver events, and stops them.
//!
//! A start script receives free ports in environment variables: `GATEWAY_PORTS` and `METRICS_PORTS` with one port per
//! gateway, `API_PORT` and `REDIS_PORT`. It runs until SIGTERM and then stops the processes that it started.

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

/// The time limit for a server to start and deliver its first events.
const START_NS: u64 = 60_000_000_000;
/// The time limit for a server to stop after SIGTERM.
const STOP_NS: u64 = 15_000_000_000;
/// The interval between checks.
const PAUSE_NS: u64 = 50_000_000;

/// A server that is running for one measurement.
pub(crate) struct Launched {
    pub(crate) subject: Subject,
    program: Option<Program>,
}

/// The process of a start script.
struct Program {
    child: Child,
    log: PathBuf,
}

impl Launched {
    /// Starts a server, unless it is already running. Waits until each of its gateways delivers an event.
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
        let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = Command::new(start)
            .env("GATEWAY_PORTS", words(gateways))
            .env("METRICS_PORTS", words(metrics))
            .env("API_PORT", others[0].to_string())
            .env("REDIS_PORT", others[1].to_string())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", start.display()))?;
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

    /// Stops the server if [`Self::start`] started it.
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
                bail!("{} exited with {status}:\n{}", subject.name, self.log_end());
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
        bail!("{} did not deliver events in time: {}\n{}", subject.name, last.unwrap_or_default(), self.log_end())
    }

    fn stop(&mut self) -> Result<()> {
        let started = descendants(self.child.id());
        started::signal(self.child.id(), Signal::TERM);
        let until_ns = clock::now_ns() + STOP_NS;
        while clock::now_ns() < until_ns {
            if self.child.try_wait()?.is_some() {
                // The log is only needed after a failure.
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
            // `drop` cannot return the error.
            let _ = self.stop();
        }
        started::remove(self.child.id());
    }
}

/// Returns a scenario with one socket per gateway and a few events for all of them.
fn probe(gateways: usize) -> Scenario {
    let sending = Sending::default();
    Scenario::Fanout(Fanout { subscribers: gateways, rate: 100.0, events: 5, data_bytes: 40, sending })
}

/// Returns ports that are currently free.
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

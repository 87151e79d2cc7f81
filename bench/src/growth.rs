//! `bench growth`: measures how cost grows with subscribers, with sockets, and with gateways without subscribers.

mod plot;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::clock;
use crate::compare::{Group, Launched, Selection, Server, alternate};
use crate::figure::{Figure, Measurement, median};
use crate::machine::Machine;
use crate::process::ProcessCpu;
use crate::publisher::{Sending, sleep_until};
use crate::run::{Rounds, Runs, write_json};
use crate::scenario::{Fanout, Idle, Scenario};
use crate::table::{Table, number};

use plot::{Plot, Series};

/// Deliveries per second at every number of subscribers, well below the limit of the slowest server.
const DELIVERIES_PER_S: f64 = 20_000.0;
/// The highest rate of events. With few subscribers, [`DELIVERIES_PER_S`] needs more requests than one connection carries.
const RATE_MAX: f64 = 200.0;
/// The lowest number of events. With fewer, the server's background work dominates.
const EVENTS_MIN: u64 = 50;

/// The number of subscribers when one gateway has all of them.
const BYSTANDERS_SUBSCRIBERS: usize = 10;
/// Their events per second, high enough that the constant background work of a gateway is negligible.
const BYSTANDERS_RATE: f64 = 1_000.0;

/// The time after which all gateways have unsubscribed from the channel of the start check.
const UNSUBSCRIBE_NS: u64 = 3_000_000_000;

/// Plots how cost grows with subscribers, sockets and nodes
#[derive(Args, Clone, Debug)]
pub(crate) struct Growth {
    #[command(flatten)]
    selection: Selection,
    /// Numbers of subscribers of one channel
    #[arg(long, value_delimiter = ',', default_value = "10,30,100,300,1000,3000,10000,19000,30000,50000")]
    subscribers: Vec<usize>,
    /// Numbers of idle sockets
    #[arg(long, value_delimiter = ',', default_value = "1000,3000,6000,10000,15000,19000,30000,50000")]
    sockets: Vec<usize>,
    /// Numbers of gateways; one of them has all subscribers
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    gateways: Vec<usize>,
    /// Seconds of each run with events; longer at low rates
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Runs of each point; medians are shown
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

/// The complete results as JSON.
#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    versions: &'a [(String, String)],
    plots: &'a [Plotted],
}

/// A plot and the runs that it shows.
#[derive(Serialize)]
struct Plotted {
    plot: Plot,
    rounds: Vec<Rounds>,
}

impl Growth {
    /// # Errors
    /// Returns an error if a run of the first server of a group failed or had faults. All results are written first.
    pub(crate) fn run(self) -> Result<()> {
        let machine = Machine::detect();
        let folder = self.selection.folder(&machine, "growth")?;
        let servers = self.selection.servers()?;
        let versions: Vec<(String, String)> =
            servers.iter().map(|server| (server.name.clone(), server.version())).collect();
        let (alone, clusters): (Vec<&Server>, Vec<&Server>) =
            servers.iter().partition(|server| server.group == Group::OneNode);
        let mut plots: Vec<Plotted> = Vec::new();
        let mut add = |plotted: Plotted| {
            plots.push(plotted);
            // Written after each plot, which keeps earlier results if a later run fails.
            write_json(&folder.join("growth.json"), &Report { machine: &machine, versions: &versions, plots: &plots })?;
            write_page(&folder, &machine, &versions, &plots)
        };
        if !self.subscribers.is_empty() {
            add(self.deliveries(&alone))?;
        }
        if !self.sockets.is_empty() {
            add(self.memory(&alone))?;
        }
        for cluster in &clusters {
            add(self.bystanders(cluster))?;
        }
        print!("{}", fs::read_to_string(folder.join("growth.md"))?);
        eprintln!("results are in {}", folder.display());
        let firsts = [alone.first(), clusters.first()].into_iter().flatten();
        let names: Vec<&str> = firsts.map(|server| server.name.as_str()).collect();
        let rounds = plots.iter().flat_map(|plotted| &plotted.rounds);
        let ours = rounds.filter(|rounds| rounds.subjects.iter().any(|it| names.contains(&it.subject.as_str())));
        let problems: Vec<String> = ours.filter_map(Rounds::problem).collect();
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    }

    /// Measures CPU per delivery of the floor and of every server.
    fn deliveries(&self, servers: &[&Server]) -> Plotted {
        let mut plot = Plot {
            name: "growth-deliveries".into(),
            title: "CPU per delivery by subscribers of one channel".into(),
            x: "subscribers".into(),
            y: "us per delivery".into(),
            logarithmic: true,
            series: Vec::new(),
            notes: Vec::new(),
        };
        let scenario = |subscribers| fanout(subscribers, deliveries_rate(subscribers), self.seconds);
        let rounds = self.points(&mut plot, &self.subscribers, Figure::CpuPerDeliveryUs, |subscribers| {
            alternate(&scenario(subscribers), servers, true, self.rounds)
        });
        Plotted { plot, rounds }
    }

    /// Measures resident memory by idle sockets.
    fn memory(&self, servers: &[&Server]) -> Plotted {
        let mut plot = Plot {
            name: "growth-memory".into(),
            title: "Resident memory by idle sockets".into(),
            x: "sockets".into(),
            y: "MiB".into(),
            logarithmic: false,
            series: Vec::new(),
            notes: Vec::new(),
        };
        let rounds = self.points(&mut plot, &self.sockets, Figure::ResidentAfterMib, |sockets| {
            alternate(&Scenario::Idle(Idle { sockets, in_flight: 64, hold_s: 2 }), servers, false, self.rounds)
        });
        Plotted { plot, rounds }
    }

    /// Runs each count and adds a point per subject: the median of a figure over the clean runs.
    fn points(&self, plot: &mut Plot, counts: &[usize], figure: Figure, run: impl Fn(usize) -> Rounds) -> Vec<Rounds> {
        let mut all = Vec::new();
        for &count in counts {
            let rounds = run(count);
            eprint!("{}", rounds.report());
            plot.add(count, &rounds, figure);
            all.push(rounds);
        }
        all
    }

    /// Measures CPU per event of each process when one gateway has all subscribers.
    fn bystanders(&self, cluster: &Server) -> Plotted {
        let mut series = vec![
            Series::new("gateway with the subscribers"),
            Series::new("each other gateway"),
            Series::new("other processes"),
        ];
        let scenario = fanout(BYSTANDERS_SUBSCRIBERS, BYSTANDERS_RATE, self.seconds);
        let events = events(BYSTANDERS_RATE, self.seconds) as f64;
        let (mut all, mut notes) = (Vec::new(), Vec::new());
        for &gateways in &self.gateways {
            let server = Server { gateways, ..cluster.clone() };
            let mut rounds = Rounds::new(scenario.clone(), [&cluster.name]);
            rounds.title = format!("{gateways} gateways, one of them with all subscribers of {}", rounds.title);
            let mut shares = Vec::new();
            for _ in 0..self.rounds.max(1) {
                let run = on_one_gateway(&scenario, &server);
                let (measurement, share) =
                    run.map_or_else(|error| (Err(error), None), |(it, share)| (Ok(it), Some(share)));
                let measurement = Measurement::or_failed(measurement);
                shares.extend(share.filter(|_| measurement.is_clean()));
                rounds.subjects[0].runs.push(measurement);
            }
            let x = gateways as f64;
            let mut add = |index: usize, pick: fn(&Shares) -> f64| {
                series[index].add(x, median(shares.iter().map(pick)).map(|cpu_s| cpu_s * 1e6 / events));
            };
            add(0, |shares| shares.with_subscribers_s);
            if gateways > 1 {
                add(1, |shares| shares.each_other_s);
            }
            add(2, |shares| shares.rest_s);
            notes.extend(left_out(&rounds.subjects[0], gateways, "gateways"));
            all.push(rounds);
        }
        let plot = Plot {
            name: format!("growth-{}", cluster.name),
            title: format!(
                "{}: CPU per event with all {BYSTANDERS_SUBSCRIBERS} subscribers on one gateway",
                cluster.name
            ),
            x: "gateways".into(),
            y: "us per event".into(),
            logarithmic: false,
            series,
            notes,
        };
        Plotted { plot, rounds: all }
    }
}

impl Plot {
    /// Adds a point for each subject with a clean run, and a note for each subject with other runs.
    fn add(&mut self, count: usize, rounds: &Rounds, figure: Figure) {
        for runs in &rounds.subjects {
            let index = self.series.iter().position(|series| series.name == runs.subject).unwrap_or_else(|| {
                self.series.push(Series::new(&runs.subject));
                self.series.len() - 1
            });
            let clean = runs.runs.iter().filter(|run| run.is_clean());
            self.series[index].add(count as f64, median(clean.filter_map(|run| run.of(figure))));
            self.notes.extend(left_out(runs, count, &self.x));
        }
    }
}

/// Returns a note on the runs that the plot omits, with the reason.
fn left_out(runs: &Runs, count: usize, of: &str) -> Option<String> {
    Some(format!("omitted: {} with {count} {of}: {}", runs.subject, runs.problem()?))
}

/// Starts a server and runs a scenario with all sockets on its first gateway.
fn on_one_gateway(scenario: &Scenario, server: &Server) -> Result<(Measurement, Shares)> {
    let mut launched = Launched::start(server)?;
    let ports: Vec<String> = launched.subject.ws.iter().map(|address| address.port().to_string()).collect();
    launched.subject.ws.truncate(1);
    sleep_until(clock::now_ns() + UNSUBSCRIBE_NS);
    let measurement = scenario.run(&launched.subject);
    launched.stop()?;
    let measurement = measurement?;
    let shares = Shares::of(&measurement.processes, &ports)?;
    Ok((measurement, shares))
}

/// The CPU time of a cluster's processes in one run, in seconds.
#[derive(Debug, PartialEq)]
struct Shares {
    with_subscribers_s: f64,
    each_other_s: f64,
    rest_s: f64,
}

impl Shares {
    /// Sums the CPU times by role. `ports` has one port of each gateway; the first gateway has the subscribers.
    ///
    /// # Errors
    /// Returns an error if a gateway is not among the processes, since its cost is then unknown.
    fn of(processes: &[ProcessCpu], ports: &[String]) -> Result<Self> {
        // The port is an argument of the gateway's command.
        let has = |command: &str, port: &str| command.split_whitespace().any(|word| word == port);
        let cpu_of = |port: &String| {
            let process = processes.iter().find(|process| has(&process.command, port));
            process.map(|process| process.cpu_s).with_context(|| format!("no process has port {port} in its command"))
        };
        let gateways: Vec<f64> = ports.iter().map(cpu_of).collect::<Result<_>>()?;
        let (with_subscribers_s, others) = gateways.split_first().context("there is no gateway")?;
        let all: f64 = processes.iter().map(|process| process.cpu_s).sum();
        let others_s: f64 = others.iter().sum();
        Ok(Self {
            with_subscribers_s: *with_subscribers_s,
            each_other_s: others_s / others.len().max(1) as f64,
            rest_s: all - with_subscribers_s - others_s,
        })
    }
}

/// Returns the events per second that result in [`DELIVERIES_PER_S`], up to [`RATE_MAX`].
fn deliveries_rate(subscribers: usize) -> f64 {
    (DELIVERIES_PER_S / subscribers.max(1) as f64).min(RATE_MAX)
}

fn events(rate: f64, seconds: f64) -> u64 {
    ((rate * seconds).ceil() as u64).max(EVENTS_MIN)
}

fn fanout(subscribers: usize, rate: f64, seconds: f64) -> Scenario {
    let events = events(rate, seconds);
    Scenario::Fanout(Fanout { subscribers, rate, events, data_bytes: 100, sending: Sending::default() })
}

fn write_page(folder: &Path, machine: &Machine, versions: &[(String, String)], plots: &[Plotted]) -> Result<()> {
    let mut page = format!(
        "# How cost grows\n\n{}, {}, Linux {}. Points are medians of clean runs.\n\n{}",
        machine.date,
        machine.processor,
        machine.kernel,
        machine.sources(versions)
    );
    for Plotted { plot, .. } in plots {
        fs::write(folder.join(plot.file_name()), plot.svg()?)?;
        let (title, file) = (&plot.title, plot.file_name());
        page += &format!("\n## {title}\n\n![{title}]({file})\n\n{}", table(plot).markdown());
        let notes: String = plot.notes.iter().map(|note| format!("- {note}\n")).collect();
        page += &if notes.is_empty() { notes } else { format!("\n{notes}") };
    }
    fs::write(folder.join("growth.md"), page).with_context(|| format!("cannot write to {}", folder.display()))
}

/// Returns the points of a plot as a table.
fn table(plot: &Plot) -> Table {
    let head = std::iter::once(plot.x.clone()).chain(plot.series.iter().map(|series| series.name.clone()));
    let mut table = Table::new(0, head);
    let mut xs: Vec<f64> = plot.series.iter().flat_map(|series| series.points.iter().map(|point| point.0)).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    for x in xs {
        let values = plot.series.iter().map(|series| {
            let point = series.points.iter().find(|point| point.0 == x);
            point.map_or_else(String::new, |point| number(point.1, 2))
        });
        table.row(std::iter::once(number(x, 0)).chain(values));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(command: &str, cpu_s: f64) -> ProcessCpu {
        ProcessCpu { pid: 1, command: command.into(), cpu_s }
    }

    #[test]
    fn a_missing_gateway_is_an_error() {
        let processes = [
            process("redis-server 127.0.0.1:7000", 0.5),
            process("carillon gateway --port 8000", 4.0),
            process("carillon gateway --port 8001", 1.0),
            process("carillon gateway --port 8002", 3.0),
        ];
        let ports = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<String>>();
        let shares = Shares::of(&processes, &ports(&["8000", "8001", "8002"])).expect("all gateways are listed");
        assert_eq!(shares, Shares { with_subscribers_s: 4.0, each_other_s: 2.0, rest_s: 0.5 });
        for missing in [&["8000", "9000"][..], &["9000", "8000"], &[]] {
            assert!(Shares::of(&processes, &ports(missing)).is_err(), "{missing:?}");
        }
    }

    #[test]
    fn every_run_has_a_minimum_of_events() {
        for (subscribers, expected) in [(10, 1000), (1000, 100), (10_000, 50), (50_000, 50)] {
            assert_eq!(events(deliveries_rate(subscribers), 5.0), expected, "{subscribers}");
        }
    }

    #[test]
    fn a_run_with_losses_becomes_a_note_instead_of_a_point() {
        let mut plot = Plot {
            name: "a".into(),
            title: "Cost".into(),
            x: "subscribers".into(),
            y: "us".into(),
            logarithmic: true,
            series: Vec::new(),
            notes: Vec::new(),
        };
        let run = |cpu: f64, lost: f64| {
            let mut measurement = Measurement::default();
            measurement.set(Figure::CpuPerDeliveryUs, cpu);
            measurement.set(Figure::Lost, lost);
            measurement
        };
        let mut rounds = Rounds::new(fanout(10, 1.0, 1.0), ["good", "lossy", "failed"]);
        rounds.subjects[0].runs = vec![run(1.0, 0.0), run(3.0, 0.0)];
        rounds.subjects[1].runs = vec![run(1.0, 0.0), run(0.1, 70.0)];
        rounds.subjects[2].runs = vec![Measurement::or_failed(Err(anyhow::anyhow!("no start"))); 2];
        plot.add(10, &rounds, Figure::CpuPerDeliveryUs);
        let points: Vec<_> = plot.series.iter().map(|series| series.points.clone()).collect();
        assert_eq!(points, [vec![(10.0, 2.0)], vec![(10.0, 1.0)], vec![]]);
        let notes = [
            "omitted: lossy with 10 subscribers: 1 of 2 runs not clean: 70 lost",
            "omitted: failed with 10 subscribers: 2 of 2 runs not clean: failed: no start",
        ];
        assert_eq!(plot.notes, notes);
    }
}

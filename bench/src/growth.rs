//! How cost grows: with subscribers, with sockets, with nodes that have nothing to do with a channel.

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

/// Deliveries per second that every number of subscribers gets: well below what the slowest server can do.
const DELIVERIES_PER_S: f64 = 20_000.0;
/// Most events per second: few subscribers would need more requests than one connection can carry.
const RATE_MAX: f64 = 200.0;
/// Fewest events, however rare: with ten, what a server does besides would count as theirs.
const EVENTS_MIN: u64 = 50;

/// Subscribers that are all on one gateway, and their events per second: enough that what a gateway does for itself, which
/// is the same at every rate, hardly counts.
const BYSTANDERS_SUBSCRIBERS: usize = 10;
const BYSTANDERS_RATE: f64 = 1_000.0;

/// How long gateways may go on hearing a channel that the last socket has left: the start's own test has left traces.
const FORGET_NS: u64 = 3_000_000_000;

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
    /// Numbers of gateways of which one has the subscribers
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    gateways: Vec<usize>,
    /// Seconds of each run with events, or more if they are rare
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Times that each point is measured; medians are shown
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

/// Everything that was measured, for other programs.
#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    versions: &'a [(String, String)],
    plots: &'a [Plotted],
}

/// A picture, and every run that it was made from.
#[derive(Serialize)]
struct Plotted {
    plot: Plot,
    rounds: Vec<Rounds>,
}

impl Growth {
    /// # Errors
    /// Returns an error if a run of the first server of a group failed or was not clean, after everything has been reported.
    pub(crate) fn run(self) -> Result<()> {
        let machine = Machine::look();
        let folder = self.selection.folder(&machine, "growth")?;
        let servers = self.selection.servers()?;
        let versions: Vec<(String, String)> =
            servers.iter().map(|server| (server.name.clone(), server.version())).collect();
        let (alone, clusters): (Vec<&Server>, Vec<&Server>) =
            servers.iter().partition(|server| server.group == Group::OneNode);
        let mut plots: Vec<Plotted> = Vec::new();
        let mut add = |plotted: Plotted| {
            plots.push(plotted);
            // After each: what has been measured survives whatever comes.
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
        eprintln!("written to {}", folder.display());
        let firsts = [alone.first(), clusters.first()].into_iter().flatten();
        let names: Vec<&str> = firsts.map(|server| server.name.as_str()).collect();
        let rounds = plots.iter().flat_map(|plotted| &plotted.rounds);
        let ours = rounds.filter(|rounds| rounds.subjects.iter().any(|it| names.contains(&it.subject.as_str())));
        let trouble: Vec<String> = ours.filter_map(Rounds::trouble).collect();
        ensure!(trouble.is_empty(), "{}", trouble.join("\n"));
        Ok(())
    }

    /// CPU per delivery, of the floor and every server.
    fn deliveries(&self, servers: &[&Server]) -> Plotted {
        let mut plot = Plot {
            name: "growth-deliveries".into(),
            title: "CPU per delivery against subscribers of one channel".into(),
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

    /// Resident memory of idle sockets.
    fn memory(&self, servers: &[&Server]) -> Plotted {
        let mut plot = Plot {
            name: "growth-memory".into(),
            title: "Resident memory against idle sockets".into(),
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

    /// Measures at each count, and adds a point to each subject's line: the middle of a figure over its clean runs.
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

    /// CPU per event of each process when all subscribers are on one of several gateways.
    fn bystanders(&self, cluster: &Server) -> Plotted {
        let mut series = vec![
            Series::new("gateway with the subscribers"),
            Series::new("each other gateway"),
            Series::new("everything else"),
        ];
        let scenario = fanout(BYSTANDERS_SUBSCRIBERS, BYSTANDERS_RATE, self.seconds);
        let events = events(BYSTANDERS_RATE, self.seconds) as f64;
        let (mut all, mut notes) = (Vec::new(), Vec::new());
        for &gateways in &self.gateways {
            let server = Server { gateways, ..cluster.clone() };
            let mut rounds = Rounds::new(scenario.clone(), [&cluster.name]);
            rounds.title = format!("{gateways} gateways, of which one has all of {}", rounds.title);
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
                series[index].add(x, median(shares.iter().map(pick)).map(|middle| middle * 1e6 / events));
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
    /// A point for each subject that has a clean run, and a note of every other run.
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

/// Which runs no point stands for, and why.
fn left_out(runs: &Runs, count: usize, of: &str) -> Option<String> {
    Some(format!("left out, {} with {count} {of}: {}", runs.subject, runs.trouble()?))
}

/// Runs a scenario with all its sockets on the first gateway of a server that is started for it.
fn on_one_gateway(scenario: &Scenario, server: &Server) -> Result<(Measurement, Shares)> {
    let mut launched = Launched::start(server)?;
    let ports: Vec<String> = launched.subject.ws.iter().map(|address| address.port().to_string()).collect();
    launched.subject.ws.truncate(1);
    sleep_until(clock::now_ns() + FORGET_NS);
    let measurement = scenario.run(&launched.subject);
    launched.stop()?;
    let measurement = measurement?;
    let shares = Shares::of(&measurement.processes, &ports)?;
    Ok((measurement, shares))
}

/// CPU of a cluster's processes over one run, in seconds.
#[derive(Debug, PartialEq)]
struct Shares {
    with_subscribers_s: f64,
    each_other_s: f64,
    rest_s: f64,
}

impl Shares {
    /// `ports`: one of each gateway, the one with the subscribers first.
    ///
    /// # Errors
    /// Returns an error if a gateway is not among the processes: its cost is unknown then, not nothing.
    fn of(processes: &[ProcessCpu], ports: &[String]) -> Result<Self> {
        // A gateway is started with its port.
        let has = |command: &str, port: &str| command.split_whitespace().any(|word| word == port);
        let cpu_of = |port: &String| {
            let process = processes.iter().find(|process| has(&process.command, port));
            process.map(|process| process.cpu_s).with_context(|| format!("no process was started with port {port}"))
        };
        let gateways: Vec<f64> = ports.iter().map(cpu_of).collect::<Result<_>>()?;
        let (with_subscribers_s, others) = gateways.split_first().context("no gateways")?;
        let all: f64 = processes.iter().map(|process| process.cpu_s).sum();
        let others_s: f64 = others.iter().sum();
        Ok(Self {
            with_subscribers_s: *with_subscribers_s,
            each_other_s: others_s / others.len().max(1) as f64,
            rest_s: all - with_subscribers_s - others_s,
        })
    }
}

/// Events per second, so that every number of subscribers gets as many deliveries.
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
    fs::write(folder.join("growth.md"), page).with_context(|| format!("writing to {}", folder.display()))
}

/// The points of a plot as a table.
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
    fn every_gateway_must_be_found() {
        let processes = [
            process("redis-server 127.0.0.1:7000", 0.5),
            process("carillon gateway --port 8000", 4.0),
            process("carillon gateway --port 8001", 1.0),
            process("carillon gateway --port 8002", 3.0),
        ];
        let ports = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<String>>();
        let shares = Shares::of(&processes, &ports(&["8000", "8001", "8002"])).expect("all are there");
        assert_eq!(shares, Shares { with_subscribers_s: 4.0, each_other_s: 2.0, rest_s: 0.5 });
        for missing in [&["8000", "9000"][..], &["9000", "8000"], &[]] {
            assert!(Shares::of(&processes, &ports(missing)).is_err(), "{missing:?}");
        }
    }

    #[test]
    fn rare_events_are_still_enough() {
        for (subscribers, expected) in [(10, 1000), (1000, 100), (10_000, 50), (50_000, 50)] {
            assert_eq!(events(deliveries_rate(subscribers), 5.0), expected, "{subscribers}");
        }
    }

    #[test]
    fn a_run_with_losses_is_no_point_but_a_note() {
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
        let mut rounds = Rounds::new(fanout(10, 1.0, 1.0), ["good", "lossy", "gone"]);
        rounds.subjects[0].runs = vec![run(1.0, 0.0), run(3.0, 0.0)];
        rounds.subjects[1].runs = vec![run(1.0, 0.0), run(0.1, 70.0)];
        rounds.subjects[2].runs = vec![Measurement::or_failed(Err(anyhow::anyhow!("no start"))); 2];
        plot.add(10, &rounds, Figure::CpuPerDeliveryUs);
        let points: Vec<_> = plot.series.iter().map(|series| series.points.clone()).collect();
        assert_eq!(points, [vec![(10.0, 2.0)], vec![(10.0, 1.0)], vec![]]);
        let notes = [
            "left out, lossy with 10 subscribers: 1 of 2 runs not clean: 70 lost",
            "left out, gone with 10 subscribers: 2 of 2 runs not clean: failed: no start",
        ];
        assert_eq!(plot.notes, notes);
    }
}

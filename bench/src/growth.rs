//! How cost grows: with subscribers, with sockets, with nodes that have nothing to do with a channel.

mod plot;

use std::fs;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::clock;
use crate::compare::{Group, Launched, Selection, Server, once};
use crate::figure::{Figure, Measurement, median};
use crate::machine::Machine;
use crate::publisher::{Sending, sleep_until};
use crate::run::write_json;
use crate::scenario::{Fanout, Idle, Scenario};
use crate::sockets;
use crate::subject::Subject;
use crate::table::{Table, number};

use plot::{Plot, Series};

/// Deliveries per second that every number of subscribers gets: well below what the slowest server can do.
const DELIVERIES_PER_S: f64 = 20_000.0;
/// Most events per second: few subscribers would need more requests than one connection can carry.
const RATE_MAX: f64 = 200.0;

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
    /// Seconds of each run with events
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Times that each point is measured; medians are shown
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

impl Growth {
    pub(crate) fn run(mut self) -> Result<()> {
        let most = sockets::most()?;
        for counts in [&mut self.subscribers, &mut self.sockets] {
            if counts.iter().any(|count| *count > most) {
                eprintln!("this process may have {most} sockets: larger numbers are left out");
                counts.retain(|count| *count <= most);
            }
        }
        let machine = Machine::look();
        let folder = self.selection.folder(&machine, "growth")?;
        let servers = self.selection.servers()?;
        let (alone, clusters): (Vec<_>, Vec<_>) =
            servers.into_iter().partition(|server| server.group == Group::OneNode);
        let mut plots = Vec::new();
        if !self.subscribers.is_empty() {
            plots.push(self.deliveries(&alone)?);
        }
        if !self.sockets.is_empty() {
            plots.push(self.memory(&alone)?);
        }
        for cluster in &clusters {
            match self.bystanders(cluster) {
                Ok(plot) => plots.push(plot),
                Err(error) => eprintln!("{}: {error:#}", cluster.name),
            }
        }
        let mut page =
            format!("# How cost grows\n\n{}, {}, Linux {}\n", machine.date, machine.processor, machine.kernel);
        for plot in &plots {
            fs::write(folder.join(plot.file_name()), plot.svg()?)?;
            page += &format!(
                "\n## {}\n\n![{}]({})\n\n{}",
                plot.title,
                plot.title,
                plot.file_name(),
                table(plot).markdown()
            );
        }
        fs::write(folder.join("growth.md"), &page)?;
        write_json(&folder.join("growth.json"), &Report { machine: &machine, plots: &plots })?;
        print!("{page}");
        eprintln!("written to {}", folder.display());
        Ok(())
    }

    /// CPU per delivery, of the floor and every server.
    fn deliveries(&self, servers: &[Server]) -> Result<Plot> {
        let mut series = vec![Series::new("floor")];
        series.extend(servers.iter().map(|server| Series::new(&server.name)));
        for &subscribers in &self.subscribers {
            let rate = (DELIVERIES_PER_S / subscribers as f64).min(RATE_MAX);
            let scenario = self.fanout(subscribers, rate);
            let x = subscribers as f64;
            series[0].add(x, self.middle(|| scenario.run(&Subject::floor()?), Figure::CpuPerDeliveryUs)?);
            for (server, series) in servers.iter().zip(&mut series[1..]) {
                series.add(x, self.middle(|| once(&scenario, server), Figure::CpuPerDeliveryUs)?);
            }
        }
        Ok(Plot {
            name: "growth-deliveries".into(),
            title: "CPU per delivery against subscribers of one channel".into(),
            x: "subscribers".into(),
            y: "us per delivery".into(),
            logarithmic: true,
            series,
        })
    }

    /// Resident memory of idle sockets.
    fn memory(&self, servers: &[Server]) -> Result<Plot> {
        let mut series: Vec<Series> = servers.iter().map(|server| Series::new(&server.name)).collect();
        for &sockets in &self.sockets {
            let scenario = Scenario::Idle(Idle { sockets, in_flight: 64, hold_s: 2 });
            for (server, series) in servers.iter().zip(&mut series) {
                series.add(sockets as f64, self.middle(|| once(&scenario, server), Figure::ResidentAfterMib)?);
            }
        }
        Ok(Plot {
            name: "growth-memory".into(),
            title: "Resident memory against idle sockets".into(),
            x: "sockets".into(),
            y: "MiB".into(),
            logarithmic: false,
            series,
        })
    }

    /// CPU per event of each process when all subscribers are on one of several gateways.
    fn bystanders(&self, cluster: &Server) -> Result<Plot> {
        let mut series = vec![
            Series::new("gateway with the subscribers"),
            Series::new("each other gateway"),
            Series::new("everything else"),
        ];
        let events = BYSTANDERS_RATE * self.seconds;
        for &gateways in &self.gateways {
            let server = Server { gateways, ..cluster.clone() };
            let mut shares = Vec::new();
            for _ in 0..self.rounds.max(1) {
                shares.push(self.shares(&server)?);
            }
            let x = gateways as f64;
            let mut add = |index: usize, pick: fn(&Shares) -> f64| {
                let middle = median(shares.iter().map(pick)).unwrap_or(0.0);
                series[index].add(x, Some(middle * 1e6 / events));
            };
            add(0, |shares| shares.with_subscribers_s);
            if gateways > 1 {
                add(1, |shares| shares.each_other_s);
            }
            add(2, |shares| shares.rest_s);
        }
        Ok(Plot {
            name: format!("growth-{}", cluster.name),
            title: format!(
                "{}: CPU per event with all {BYSTANDERS_SUBSCRIBERS} subscribers on one gateway",
                cluster.name
            ),
            x: "gateways".into(),
            y: "us per event".into(),
            logarithmic: false,
            series,
        })
    }

    fn shares(&self, server: &Server) -> Result<Shares> {
        let mut launched = Launched::start(server)?;
        let ports: Vec<String> = launched.subject.ws.iter().map(|address| address.port().to_string()).collect();
        launched.subject.ws.truncate(1);
        sleep_until(clock::now_ns() + FORGET_NS);
        let measurement = self.fanout(BYSTANDERS_SUBSCRIBERS, BYSTANDERS_RATE).run(&launched.subject);
        launched.stop()?;
        let processes = measurement?.processes;
        // A gateway is started with its port.
        let has = |command: &str, port: &str| command.split_whitespace().any(|word| word == port);
        let cpu_of = |port: &str| processes.iter().find(|it| has(&it.command, port)).map(|it| it.cpu_s);
        let with_subscribers_s = cpu_of(&ports[0]).context("no process was started with the gateway's port")?;
        let others: Vec<f64> = ports[1..].iter().filter_map(|port| cpu_of(port)).collect();
        let all: f64 = processes.iter().map(|process| process.cpu_s).sum();
        let others_s: f64 = others.iter().sum();
        Ok(Shares {
            with_subscribers_s,
            each_other_s: others_s / others.len().max(1) as f64,
            rest_s: all - with_subscribers_s - others_s,
        })
    }

    fn fanout(&self, subscribers: usize, rate: f64) -> Scenario {
        let events = (rate * self.seconds).ceil().max(2.0) as u64;
        Scenario::Fanout(Fanout { subscribers, rate, events, data_bytes: 100, sending: Sending::default() })
    }

    /// The middle of a figure over all rounds; a server that fails has no point.
    fn middle(&self, run: impl Fn() -> Result<Measurement>, figure: Figure) -> Result<Option<f64>> {
        let mut values = Vec::new();
        for _ in 0..self.rounds.max(1) {
            match run() {
                Ok(measurement) => values.extend(measurement.of(figure)),
                Err(error) => eprintln!("failed: {error:#}"),
            }
        }
        Ok(median(values))
    }
}

/// CPU of a cluster's processes over one run, in seconds.
struct Shares {
    with_subscribers_s: f64,
    each_other_s: f64,
    rest_s: f64,
}

/// Everything that was measured, for other programs.
#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    plots: &'a [Plot],
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

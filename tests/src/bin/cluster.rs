//! Replaces `carillon up` with a cluster: it has the same arguments, banner and signals.
//!
//! Redis, two gateways, two publishers and nginx run behind it. A suite for one process runs against it unchanged.
//!
//! SIGUSR2 restarts the gateways one after the other, SIGUSR1 the publishers. Before each restart it prints `leaving`,
//! the role and the milliseconds since 1970. It prints `rolled` after the last restart.
//!
//! Other commands run the real binary, which is `BINARY_IN_CLUSTER` or else the file beside this one.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use tests::server::{Launch, Role, Server};
use tests::{Nginx, Redis, within};
use tokio::signal::unix::{SignalKind, signal};

const GATEWAYS: usize = 2;
const PUBLISHERS: usize = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((command, args)) if command == "up" => up(Arguments::read(args)),
        _ => {
            let error = std::process::Command::new(program()).args(&args).exec();
            eprintln!("cluster: cannot run {}: {error}", program().display());
            ExitCode::FAILURE
        }
    }
}

/// Runs on one thread, because the processes that it starts end with the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn up(arguments: Arguments) -> ExitCode {
    // Catches signals before the banner, because a caller can send one as soon as it has read the banner.
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be caught");
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
    let mut roll_gateways = signal(SignalKind::user_defined2()).expect("SIGUSR2 can be caught");
    let mut roll_publishers = signal(SignalKind::user_defined1()).expect("SIGUSR1 can be caught");

    let redis = Redis::start().await;
    let mut nodes = Vec::new();
    let roles = [(Role::Gateway, GATEWAYS), (Role::Publisher, PUBLISHERS)];
    for role in roles.into_iter().flat_map(|(role, count)| std::iter::repeat_n(role, count)) {
        nodes.push(arguments.launch(role, &redis).start().await);
    }
    for node in &nodes {
        node.ready().await;
    }
    let (gateways, publishers) = nodes.split_at(GATEWAYS);
    let addresses = |servers: &[Server]| servers.iter().map(|server| server.public).collect::<Vec<_>>();
    let nginx = Nginx::start(arguments.host, arguments.port, &addresses(gateways), &addresses(publishers)).await;
    print!("{}", banner(&nginx, &gateways[0]));

    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = roll_gateways.recv() => nodes = arguments.roll(Role::Gateway, nodes, &redis).await,
            _ = roll_publishers.recv() => nodes = arguments.roll(Role::Publisher, nodes, &redis).await,
        }
    }
    for node in &nodes {
        node.signal(Signal::TERM);
    }
    for node in nodes {
        within("the end of the cluster", node.ended()).await;
    }
    nginx.stop().await;
    ExitCode::SUCCESS
}

fn banner(nginx: &Nginx, gateway: &Server) -> String {
    let apps = gateway.banner.lines().find(|line| line.starts_with("  apps")).unwrap_or_default();
    format!(
        "Carillon behind nginx\n\n  public  http://{}   WebSocket and HTTP API\n  admin   http://{}   of one gateway\n{apps}\n\n",
        nginx.address, gateway.admin
    )
}

fn program() -> PathBuf {
    match std::env::var_os("BINARY_IN_CLUSTER") {
        Some(path) => path.into(),
        None => std::env::current_exe().expect("this program is a file").with_file_name("carillon"),
    }
}

/// The arguments of `up`.
struct Arguments {
    host: IpAddr,
    port: u16,
    /// Arguments that are forwarded to the nodes.
    others: Vec<String>,
}

impl Arguments {
    fn read(args: &[String]) -> Self {
        let mut arguments = Self { host: Ipv4Addr::LOCALHOST.into(), port: 0, others: Vec::new() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
            match arg.as_str() {
                "--host" => arguments.host = value().parse().expect("--host is an address"),
                "--port" => arguments.port = value().parse().expect("--port is a port"),
                // Every node takes a free port.
                "--admin-port" => drop(value()),
                _ => arguments.others.push(arg.clone()),
            }
        }
        arguments
    }

    /// Restarts the nodes of a role one after the other, each on its port, like an orchestrator.
    async fn roll(&self, role: Role, nodes: Vec<Server>, redis: &Redis) -> Vec<Server> {
        let mut rolled = Vec::new();
        for node in nodes {
            if node.role != role {
                rolled.push(node);
                continue;
            }
            let port = node.public.port();
            let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("1970 is over");
            println!("leaving {} {}", role.as_str(), since.as_millis());
            within("the end of a node", node.stop()).await;
            let next = self.launch(role, redis).port(port).start().await;
            next.ready().await;
            rolled.push(next);
        }
        println!("rolled");
        rolled
    }

    fn launch(&self, role: Role, redis: &Redis) -> Launch {
        let folder = std::env::current_dir().expect("there is a working directory");
        let launch = Launch { folder: Some(folder), ..Launch::of(program(), role) };
        launch.args(&self.others).args(&["--host", "127.0.0.1", "--redis", &redis.url()])
    }
}

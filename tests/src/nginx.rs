//! A real nginx in front of a cluster, configured as in production. It proxies sockets to gateways and the HTTP API to
//! publishers.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::{POLL, command, ports, within};

/// A running nginx in a temporary folder. It ends when dropped.
pub struct Nginx {
    /// The address on which it listens.
    pub address: SocketAddr,
    process: Child,
    folder: TempDir,
}

impl Nginx {
    /// Starts nginx in front of these nodes and waits until it listens.
    ///
    /// If `port` is 0, nginx takes any free port.
    ///
    /// # Panics
    /// Panics if Debian's `nginx` is not installed, or if the port is in use.
    pub async fn start(host: IpAddr, port: u16, gateways: &[SocketAddr], publishers: &[SocketAddr]) -> Self {
        Self::start_configured(host, port, |address| configuration(address, gateways, publishers)).await
    }

    async fn start_configured(host: IpAddr, port: u16, configuration: impl Fn(SocketAddr) -> String) -> Self {
        loop {
            let address = SocketAddr::new(host, if port == 0 { ports::free() } else { port });
            let folder = tempfile::tempdir().expect("a folder for nginx");
            let text = configuration(address);
            std::fs::write(folder.path().join("nginx.conf"), text).expect("a file in the folder");
            let mut process = nginx(folder.path()).spawn().expect("nginx is installed");
            if within("nginx to listen", listens(&mut process, address)).await {
                return Self { address, process, folder };
            }
            let log = log_in(folder.path());
            assert!(port == 0 && log.contains("Address already in use"), "nginx did not start:\n{log}");
        }
    }

    /// Starts nginx on any free port with only these locations.
    ///
    /// # Panics
    /// Panics if Debian's `nginx` is not installed.
    pub async fn with(host: IpAddr, locations: &str) -> Self {
        Self::start_configured(host, 0, |address| bare(address, locations)).await
    }

    /// Stops it without waiting for its connections.
    ///
    /// # Panics
    /// Panics if its exit code is not 0.
    pub async fn stop(mut self) {
        command::signal(&self.process, Signal::TERM);
        let status = within("nginx to end", self.process.wait()).await.expect("it can be waited for");
        assert!(status.success(), "nginx ended with {status}:\n{}", self.log());
    }

    /// Returns its error log.
    pub fn log(&self) -> String {
        log_in(self.folder.path())
    }
}

/// Starts a single process as the current user, so that no child remains after a kill.
fn nginx(folder: &Path) -> Command {
    let mut command = command::tied("nginx".as_ref());
    command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "error.log"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

async fn listens(process: &mut Child, address: SocketAddr) -> bool {
    loop {
        if process.try_wait().expect("it can be waited for").is_some() {
            return false;
        }
        if TcpStream::connect(address).await.is_ok() {
            // Another process may own the port. Then nginx exits at once.
            tokio::time::sleep(POLL).await;
            return process.try_wait().expect("it can be waited for").is_none();
        }
        tokio::time::sleep(POLL).await;
    }
}

fn log_in(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("error.log")).unwrap_or_default()
}

fn bare(address: SocketAddr, locations: &str) -> String {
    format!(
        "daemon off; master_process off; pid nginx.pid; error_log error.log warn; events {{}}\n\
         http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
         uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
         server {{ listen {address}; {locations} }} }}\n"
    )
}

/// Returns the configuration for a whole cluster.
fn configuration(address: SocketAddr, gateways: &[SocketAddr], publishers: &[SocketAddr]) -> String {
    let servers = |addresses: &[SocketAddr]| {
        addresses.iter().fold(String::new(), |mut text, address| {
            // A gateway that is being restarted must not be marked as failed.
            let _ = write!(text, "server {address} max_fails=0; ");
            text
        })
    };
    let (gateways, publishers) = (servers(gateways), servers(publishers));
    let locations = LOCATIONS;
    format!(
        r#"daemon off;
master_process off;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;

    map $http_upgrade $connection_header {{ default upgrade; "" close; }}
    upstream gateways {{ least_conn; {gateways}}}
    upstream publishers {{ {publishers}keepalive 16; }}

    proxy_http_version 1.1;
    proxy_connect_timeout 2s;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;

    server {{
        listen {address};
        # The publisher limits the size of requests.
        client_max_body_size 0;
{locations}
    }}
}}
"#
    )
}

/// The locations of gateways and publishers.
const LOCATIONS: &str = r#"
        location / {
            proxy_pass http://gateways;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_header;
            proxy_buffering off;
            # Gateways detect dead clients with their own pings. nginx must not be faster.
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }

        location /apps/ {
            proxy_pass http://publishers;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
        }

        # The path on which the official Python library terminates connections.
        location /users/ {
            proxy_pass http://publishers;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
        }
"#;

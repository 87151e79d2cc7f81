//! A certificate for `localhost`, and an authority that signed it and nothing else.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Files in PEM.
pub struct Certificates {
    /// The authority's own certificate.
    pub authority: PathBuf,
    /// The server's.
    pub certificate: PathBuf,
    /// The key that belongs to it.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes all of them in `folder`.
    ///
    /// # Panics
    /// When `openssl` is not installed.
    pub fn make(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        let made = Self { authority: file("authority.pem"), certificate: file("server.pem"), key: file("server.key") };
        std::fs::write(file("names"), "subjectAltName=DNS:localhost\n").expect("a file in the folder");
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"];
        openssl(folder, |command| {
            command.args(["req", "-x509", "-subj", "/CN=Test authority", "-days", "2"]).args(new_key);
            command.args(["-keyout", "authority.key", "-out", "authority.pem"]);
        });
        openssl(folder, |command| {
            command.args(["req", "-subj", "/CN=localhost"]).args(new_key);
            command.args(["-keyout", "server.key", "-out", "server.csr"]);
        });
        openssl(folder, |command| {
            command.args(["x509", "-req", "-in", "server.csr", "-out", "server.pem", "-days", "2"]);
            command.args(["-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial", "-extfile", "names"]);
        });
        made
    }
}

fn openssl(folder: &Path, fill: impl FnOnce(&mut Command)) {
    let mut command = Command::new("openssl");
    fill(command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()));
    let output = command.output().expect("openssl is installed");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}

//! A certificate for `localhost`, and the authority that signed it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The PEM files.
pub struct Certificates {
    /// The certificate of the authority.
    pub authority: PathBuf,
    /// The certificate of the server.
    pub certificate: PathBuf,
    /// The private key of the server.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes all of them in `folder`. [`Certificates::client`] adds a client certificate.
    ///
    /// # Panics
    /// Panics if `openssl` is not installed.
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

    /// Makes a self-signed certificate, like the simplest use of `openssl req -x509`.
    ///
    /// # Panics
    /// Panics if `openssl` is not installed.
    pub fn self_signed(folder: &Path) -> Self {
        openssl(folder, |command| {
            command.args(["req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=localhost", "-days", "2"]);
            command.args(["-keyout", "server.key", "-out", "server.pem"]);
        });
        let certificate = folder.join("server.pem");
        Self { authority: certificate.clone(), certificate, key: folder.join("server.key") }
    }

    /// Makes a client certificate of the authority: `client.pem` and `client.key` in the same folder.
    ///
    /// # Panics
    /// Panics if `openssl` fails.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        let folder = self.authority.parent().expect("a file is in a folder");
        openssl(folder, |command| {
            command.args(["req", "-subj", "/CN=node", "-newkey", "rsa:2048", "-noenc"]);
            command.args(["-keyout", "client.key", "-out", "client.csr"]);
        });
        openssl(folder, |command| {
            command.args(["x509", "-req", "-in", "client.csr", "-out", "client.pem", "-days", "2"]);
            command.args(["-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial"]);
        });
        (folder.join("client.pem"), folder.join("client.key"))
    }
}

fn openssl(folder: &Path, fill: impl FnOnce(&mut Command)) {
    let mut command = Command::new("openssl");
    fill(command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()));
    let output = command.output().expect("openssl is installed");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}

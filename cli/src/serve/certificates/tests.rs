//! Files that change under a server, as Kubernetes changes them and as a person does.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use shared::serve::tls;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use client::{Trust, tls as client_tls};

/// For what happens at once.
const SOON: Duration = Duration::from_secs(20);

/// A mounted secret: `tls.crt` and `tls.key` are links into `data`, which is a link to the folder of one version.
struct Mount {
    folder: TempDir,
}

impl Mount {
    fn new() -> Self {
        let mount = Self { folder: TempDir::new().unwrap() };
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("data").join(name), mount.path(name)).unwrap();
        }
        mount
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// A version with a certificate of its own for `localhost`.
    fn make(&self, version: &str) {
        std::fs::create_dir(self.path(version)).unwrap();
        let made = Command::new("openssl")
            .current_dir(self.path(version))
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "tls.key", "-out", "tls.crt"])
            .output()
            .expect("openssl is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Makes a version the one that is seen, in one step.
    fn show(&self, version: &str) {
        symlink(version, self.path("next")).unwrap();
        std::fs::rename(self.path("next"), self.path("data")).unwrap();
    }

    fn serve(&self) -> Arc<Tls> {
        let config = tls::Config { cert: Some(self.path("tls.crt")), key: Some(self.path("tls.key")) };
        Tls::new(&config).unwrap().unwrap()
    }

    /// Whether a client that believes this version's certificate, and no other, gets it.
    async fn is_served(&self, tls: &Arc<Tls>, version: &str) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let trust = Trust::of(Some(&self.path(version).join("tls.crt"))).unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let (shaken, _) = tokio::join!(client_tls::secure(&trust, "localhost", stream), tls.accept(accepted));
        shaken.is_ok()
    }
}

#[tokio::test]
async fn a_secret_that_changes_without_a_signal_is_read_again() {
    let mount = Mount::new();
    mount.make("v1");
    mount.make("v2");
    mount.show("v1");
    let tls = mount.serve();
    assert!(mount.is_served(&tls, "v1").await);
    let keeping = tokio::spawn(keep(Some(tls.clone()), None, Duration::from_millis(5)));
    mount.show("v2");
    let changed = async {
        while !mount.is_served(&tls, "v2").await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, changed).await.expect("the new certificate is served");
    assert!(!mount.is_served(&tls, "v1").await);
    keeping.abort();
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_is_told_once_and_changes_nothing() {
    let mount = Mount::new();
    mount.make("v1");
    mount.make("v2");
    mount.show("v1");
    let tls = mount.serve();
    assert!(!tls.reload_if_changed().unwrap(), "nothing has changed");
    // The certificate of one version with the key of another, as while someone copies both by hand.
    std::fs::create_dir(mount.path("half")).unwrap();
    std::fs::copy(mount.path("v2/tls.crt"), mount.path("half/tls.crt")).unwrap();
    std::fs::copy(mount.path("v1/tls.key"), mount.path("half/tls.key")).unwrap();
    mount.show("half");
    tls.reload_if_changed().unwrap_err();
    assert!(!tls.reload_if_changed().unwrap(), "it is known already");
    assert!(mount.is_served(&tls, "v1").await);
    std::fs::remove_file(mount.path("data")).unwrap();
    tls.reload_if_changed().unwrap_err();
    assert!(!tls.reload_if_changed().unwrap(), "that there are no files is known already too");
    mount.show("v1");
    assert!(tls.reload_if_changed().unwrap(), "back to what is served is a change from what was there");
    mount.show("v2");
    assert!(tls.reload_if_changed().unwrap());
    assert!(mount.is_served(&tls, "v2").await);
    // Whoever asks is answered whether anything has changed or not.
    tls.reload().unwrap();
    assert!(!tls.reload_if_changed().unwrap());
}

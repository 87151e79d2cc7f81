//! Certificate files that change while a server runs.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use shared::serve::tls;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use client::{Trust, tls as client_tls};

/// The timeout of operations that complete at once.
const SOON: Duration = Duration::from_secs(20);

/// A directory like that of a mounted Kubernetes secret. `tls.crt` and `tls.key` link into `data`, which links to the
/// directory of one version.
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

    /// Creates a version with a new certificate for `localhost`.
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

    /// Makes a version the current one, atomically.
    fn publish(&self, version: &str) {
        symlink(version, self.path("next")).unwrap();
        std::fs::rename(self.path("next"), self.path("data")).unwrap();
    }

    fn serve(&self) -> Arc<Tls> {
        let config = tls::Config { cert: Some(self.path("tls.crt")), key: Some(self.path("tls.key")) };
        Tls::new(&config).unwrap().unwrap()
    }

    /// Returns whether the server presents the certificate of this version.
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
async fn a_changed_secret_is_reloaded_without_a_signal() {
    let mount = Mount::new();
    mount.make("v1");
    mount.make("v2");
    mount.publish("v1");
    let tls = mount.serve();
    assert!(mount.is_served(&tls, "v1").await);
    let keeping = tokio::spawn(watch(Some(tls.clone()), None, Duration::from_millis(5)));
    mount.publish("v2");
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
async fn an_unusable_pair_is_reported_once_and_changes_nothing() {
    let mount = Mount::new();
    mount.make("v1");
    mount.make("v2");
    mount.publish("v1");
    let tls = mount.serve();
    assert!(!tls.reload_if_changed().unwrap(), "nothing has changed");
    // The certificate of one version with the key of another, like during a manual copy.
    std::fs::create_dir(mount.path("half")).unwrap();
    std::fs::copy(mount.path("v2/tls.crt"), mount.path("half/tls.crt")).unwrap();
    std::fs::copy(mount.path("v1/tls.key"), mount.path("half/tls.key")).unwrap();
    mount.publish("half");
    tls.reload_if_changed().unwrap_err();
    assert!(!tls.reload_if_changed().unwrap(), "the error was already reported");
    assert!(mount.is_served(&tls, "v1").await);
    std::fs::remove_file(mount.path("data")).unwrap();
    tls.reload_if_changed().unwrap_err();
    assert!(!tls.reload_if_changed().unwrap(), "the missing files were already reported");
    mount.publish("v1");
    assert!(tls.reload_if_changed().unwrap(), "the old files differ from the missing ones");
    mount.publish("v2");
    assert!(tls.reload_if_changed().unwrap());
    assert!(mount.is_served(&tls, "v2").await);
    // A signal reloads the files even if they have not changed.
    tls.reload().unwrap();
    assert!(!tls.reload_if_changed().unwrap());
}

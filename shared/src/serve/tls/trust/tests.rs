use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use super::*;

/// A folder with certificates that `openssl` creates.
struct Folder(TempDir);

const RSA: &str = "rsa:2048";
const ECDSA: &str = "ec -pkeyopt ec_paramgen_curve:prime256v1";

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.pem"))
    }

    fn openssl(&self, args: &str) {
        let made = Command::new("openssl").current_dir(self.0.path()).args(args.split(' ')).output();
        let made = made.expect("openssl is installed");
        assert!(made.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&made.stderr));
    }

    /// Creates a self-signed certificate with `CA:TRUE`, like `openssl req -x509`.
    fn self_signed(&self, name: &str, key: &str, more: &str) {
        self.openssl(&format!("req -x509 -newkey {key} -noenc -days 2 -keyout {name}.key -out {name}.pem {more}"));
    }

    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(name)).unwrap()
    }

    /// Verifies the certificate `server` for a host, with the trusted certificates of a file, at the time `after` from
    /// now.
    fn verify(&self, trusted: &str, server: &str, host: &str, after: Duration) -> Result<(), String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Trust::of(Some(&self.path(trusted))).unwrap().verifier(provider).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + after);
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let verified = verifier.verify_server_cert(&self.certificate(server), &[], &name, &[], now);
        verified.map(drop).map_err(|error| error.to_string())
    }
}

const NOW: Duration = Duration::ZERO;
const NEXT_WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const NAMES: &str = "-subj /CN=x -addext subjectAltName=DNS:redis.test,DNS:*.cache.test,IP:10.0.0.7";

#[test]
fn a_listed_self_signed_certificate_is_trusted_for_its_names_and_dates() {
    for key in [RSA, ECDSA] {
        let folder = Folder::new();
        folder.self_signed("own", key, NAMES);
        for host in ["redis.test", "REDIS.test", "a.cache.test", "10.0.0.7"] {
            assert_eq!(folder.verify("own", "own", host, NOW), Ok(()), "{key} {host}");
        }
        for host in ["other.test", "redis.test.evil", "x", "10.0.0.8", "::1"] {
            let error = folder.verify("own", "own", host, NOW).expect_err(host);
            assert!(error.contains("not valid for name"), "{key} {host}: {error}");
        }
        let error = folder.verify("own", "own", "redis.test", NEXT_WEEK).expect_err("expired");
        assert!(error.contains("certificate expired"), "{error}");
    }
}

#[test]
fn another_self_signed_certificate_of_the_same_name_is_refused() {
    for key in [RSA, ECDSA] {
        let folder = Folder::new();
        folder.self_signed("own", key, NAMES);
        folder.self_signed("other", key, NAMES);
        let error = folder.verify("own", "other", "redis.test", NOW).expect_err("another key");
        assert!(error.contains("UnknownIssuer"), "{error}");
        // The same key, in a certificate that differs in its serial number.
        folder.openssl(&format!("req -x509 -key own.key -days 2 -out twin.pem {NAMES}"));
        assert!(folder.verify("own", "twin", "redis.test", NOW).is_err());
        // Both in one file.
        let both = [folder.path("own"), folder.path("other")].map(|path| std::fs::read(path).unwrap()).concat();
        std::fs::write(folder.path("both"), both).unwrap();
        assert_eq!(folder.verify("both", "other", "redis.test", NOW), Ok(()));
    }
}

#[test]
fn without_alternative_names_the_common_name_counts_if_the_certificate_is_in_the_file() {
    let folder = Folder::new();
    folder.self_signed("own", ECDSA, "-subj /O=Shop/CN=redis.test");
    assert_eq!(folder.verify("own", "own", "redis.test", NOW), Ok(()));
    assert!(folder.verify("own", "own", "Shop", NOW).is_err());
    assert!(folder.verify("own", "own", "other.test", NOW).is_err());
    assert!(folder.verify("own", "own", "redis.test", NEXT_WEEK).is_err(), "expired");
    folder.self_signed("wild", ECDSA, "-subj /CN=*.cache.test -addext basicConstraints=critical,CA:FALSE");
    assert_eq!(folder.verify("wild", "wild", "a.cache.test", NOW), Ok(()));
    assert!(folder.verify("wild", "wild", "cache.test", NOW).is_err());
    assert!(folder.verify("wild", "wild", "a.b.cache.test", NOW).is_err());
    // With alternative names the common name does not count.
    folder.self_signed("named", ECDSA, NAMES);
    assert!(folder.verify("named", "named", "x", NOW).is_err());
}

#[test]
fn certificate_chains_are_verified() {
    for key in [RSA, ECDSA] {
        let folder = Folder::new();
        folder.self_signed("ca", key, "-subj /CN=ca");
        folder.self_signed("unrelated", key, "-subj /CN=ca");
        folder.openssl(&format!("req -newkey {key} -noenc -keyout leaf.key -out leaf.csr -subj /CN=redis.test"));
        std::fs::write(folder.0.path().join("names"), "subjectAltName=DNS:redis.test\n").unwrap();
        let sign = "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2";
        folder.openssl(&format!("{sign} -extfile names -out leaf.pem"));
        assert_eq!(folder.verify("ca", "leaf", "redis.test", NOW), Ok(()));
        assert!(folder.verify("ca", "leaf", "other.test", NOW).is_err());
        assert!(folder.verify("ca", "leaf", "redis.test", NEXT_WEEK).is_err());
        assert!(folder.verify("unrelated", "leaf", "redis.test", NOW).is_err());
        // The file may hold the certificate of a server without its CA.
        assert_eq!(folder.verify("leaf", "leaf", "redis.test", NOW), Ok(()));
        assert!(folder.verify("leaf", "leaf", "other.test", NOW).is_err());
        assert!(folder.verify("leaf", "leaf", "redis.test", NEXT_WEEK).is_err());
        // Only a listed certificate needs no alternative names.
        std::fs::write(folder.0.path().join("none"), "basicConstraints=CA:FALSE\n").unwrap();
        folder.openssl(&format!("{sign} -extfile none -out nameless.pem"));
        assert!(folder.verify("ca", "nameless", "redis.test", NOW).is_err());
        assert_eq!(folder.verify("nameless", "nameless", "redis.test", NOW), Ok(()));
    }
}

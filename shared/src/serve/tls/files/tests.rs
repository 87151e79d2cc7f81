use std::process::Command;

use tempfile::TempDir;

use super::*;

/// A folder with files that `openssl` creates.
struct Workshop(TempDir);

impl Workshop {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, args: &str) {
        let made = Command::new("openssl").current_dir(self.0.path()).args(args.split(' ')).output();
        let made = made.expect("openssl is installed");
        assert!(made.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&made.stderr));
    }

    /// Creates the self-signed certificate `NAME.pem` and its key `NAME.key`.
    fn make(&self, name: &str, key: &str) {
        let subject = format!("-subj /CN={name} -keyout {name}.key -out {name}.pem -days 2");
        self.openssl(&format!("req -x509 -newkey {key} -noenc {subject}"));
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn pair(&self, certificate: &str, key: &str) -> Result<CertifiedKey, PairError> {
        certified_key(&self.path(certificate), &self.path(key))
    }

    fn key_error(&self, name: &str) -> String {
        self.pair("good.pem", name).expect_err("the key cannot be used").to_string()
    }

    fn certificate_error(&self, name: &str) -> String {
        certificates(&self.path(name)).expect_err("the certificate cannot be used").to_string()
    }
}

const P256: &str = "ec -pkeyopt ec_paramgen_curve:prime256v1";

#[test]
fn every_usual_format_of_certificate_and_key_is_read() {
    let shop = Workshop::new();
    for (name, key) in
        [("rsa", "rsa:2048"), ("p256", P256), ("p384", "ec -pkeyopt ec_paramgen_curve:secp384r1"), ("ed", "ed25519")]
    {
        shop.make(name, key);
        let (pem, key) = (format!("{name}.pem"), format!("{name}.key"));
        assert!(shop.pair(&pem, &key).is_ok(), "{name}");
        // With the line ends of Windows, and text around the sections.
        for file in [&pem, &key] {
            let text = String::from_utf8(shop.read(file)).unwrap();
            shop.write(file, format!("Bag Attributes\r\n{}\r\n", text.replace('\n', "\r\n")).as_bytes());
        }
        assert!(shop.pair(&pem, &key).is_ok(), "{name} with CRLF");
        // Both in one file.
        let both = [shop.read(&key), shop.read(&pem)].concat();
        shop.write("both.pem", &both);
        assert!(shop.pair("both.pem", "both.pem").is_ok(), "{name} in one file");
    }
    shop.openssl("rsa -in rsa.key -traditional -out rsa1.key");
    assert!(String::from_utf8(shop.read("rsa1.key")).unwrap().contains("BEGIN RSA PRIVATE KEY"));
    assert!(shop.pair("rsa.pem", "rsa1.key").is_ok(), "PKCS#1");
    shop.openssl("ec -in p256.key -out sec1.key");
    assert!(String::from_utf8(shop.read("sec1.key")).unwrap().contains("BEGIN EC PRIVATE KEY"));
    shop.openssl("ecparam -name prime256v1 -out params.pem");
    shop.write("sec1.key", &[shop.read("params.pem"), shop.read("sec1.key")].concat());
    assert!(shop.pair("p256.pem", "sec1.key").is_ok(), "SEC1 behind its parameters");
}

#[test]
fn a_private_key_that_cannot_be_used_is_refused_with_the_cause() {
    let shop = Workshop::new();
    shop.make("good", P256);
    shop.make("other", P256);
    shop.openssl("pkcs8 -topk8 -in good.key -out pkcs8.key -passout pass:hush");
    shop.openssl("ec -in good.key -aes128 -passout pass:hush -out legacy.key");
    for name in ["pkcs8.key", "legacy.key"] {
        let error = shop.key_error(name);
        assert!(error.contains("is encrypted") && error.contains("openssl pkey -in"), "{name}: {error}");
        assert!(error.contains(name), "{error}");
    }
    for (name, kind, expected) in [
        ("p521", "ec -pkeyopt ec_paramgen_curve:secp521r1", "ECDSA P-521"),
        ("k1", "ec -pkeyopt ec_paramgen_curve:secp256k1", "ECDSA secp256k1"),
        ("ed448", "ed448", "Ed448"),
        ("short", "rsa:1024", "RSA of this size"),
    ] {
        shop.make(name, kind);
        let error = shop.pair(&format!("{name}.pem"), &format!("{name}.key")).expect_err("not supported").to_string();
        assert!(error.contains(expected) && error.contains("P-256 or P-384"), "{name}: {error}");
    }
    shop.openssl("ec -in p521.key -out p521-sec1.key");
    assert!(shop.key_error("p521-sec1.key").contains("ECDSA P-521"));
    shop.openssl("pkey -in good.key -outform DER -out der.key");
    assert!(shop.key_error("der.key").contains("openssl pkey -inform DER"), "{}", shop.key_error("der.key"));
    shop.write("empty.key", b"\n");
    assert!(shop.key_error("empty.key").contains("the file is empty"));
    shop.write("bom.key", &[b"\xef\xbb\xbf".as_slice(), &shop.read("good.key")].concat());
    assert!(shop.key_error("bom.key").contains("byte order mark"));
    shop.write("text.key", b"hush");
    assert!(shop.key_error("text.key").contains("found no section") && !shop.key_error("text.key").contains("hush"));
    assert!(shop.key_error("params.key").contains("No such file"));
    shop.openssl("ecparam -name prime256v1 -out params.key");
    assert!(shop.key_error("params.key").contains("found only EC PARAMETERS"));
    assert!(shop.key_error("good.pem").contains("may have been swapped"));
    let cut = shop.read("good.key");
    shop.write("cut.key", &cut[..cut.len() - 40]);
    assert!(shop.key_error("cut.key").contains("-----END"), "{}", shop.key_error("cut.key"));
    shop.write("bad.key", String::from_utf8(cut).unwrap().replacen("MIG", "???", 1).as_bytes());
    assert!(shop.key_error("bad.key").contains("not valid base64"), "{}", shop.key_error("bad.key"));
    assert!(shop.key_error("other.key").contains("does not belong to the certificate"));
    let error = certified_key(&shop.path("good.pem"), shop.0.path()).expect_err("a folder").to_string();
    assert!(error.contains("it is a directory"), "{error}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_with_the_cause() {
    let shop = Workshop::new();
    shop.make("good", P256);
    shop.make("other", P256);
    shop.write("bom.pem", &[b"\xef\xbb\xbf".as_slice(), &shop.read("good.pem")].concat());
    shop.write("utf16.pem", b"\xff\xfe-\0-\0");
    shop.write("empty.pem", b"");
    shop.write("text.pem", b"a certificate");
    shop.openssl("x509 -in good.pem -outform DER -out der.pem");
    shop.openssl("pkcs12 -export -in good.pem -inkey good.key -passout pass:x -out bundle.pem");
    shop.openssl("req -new -key good.key -subj /CN=x -out request.pem");
    for (name, expected) in [
        ("bom.pem", "byte order mark (BOM)"),
        ("utf16.pem", "UTF-16"),
        ("empty.pem", "the file is empty"),
        ("text.pem", "found no section"),
        ("der.pem", "openssl x509 -inform DER"),
        ("bundle.pem", "PKCS#12"),
        ("request.pem", "found only CERTIFICATE REQUEST"),
        ("good.key", "may have been swapped"),
        ("nowhere.pem", "No such file"),
        (".", "it is a directory"),
    ] {
        let error = shop.certificate_error(name);
        assert!(error.contains(expected), "{name}: {error}");
    }
    shop.write("chain.pem", &[shop.read("other.pem"), shop.read("good.pem")].concat());
    let error = shop.pair("chain.pem", "good.key").expect_err("the wrong order").to_string();
    assert!(error.contains("must be the first one in"), "{error}");
    shop.write("junk.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let error = authorities(&shop.path("junk.pem")).expect_err("no certificate").to_string();
    assert!(error.contains("junk.pem: a certificate in it cannot be used"), "{error}");
    // A certificate without extensions has version 1, which clients may use and servers may not.
    shop.openssl("req -new -key good.key -subj /CN=x -out v1.csr");
    shop.openssl("x509 -req -in v1.csr -signkey good.key -out v1.pem");
    assert!(shop.pair("v1.pem", "good.key").is_ok());
    let error = server_key(&shop.path("v1.pem"), &shop.path("good.key")).expect_err("version 1").to_string();
    assert!(error.contains("v1.pem: a certificate in it cannot be used: UnsupportedCertVersion"), "{error}");
}

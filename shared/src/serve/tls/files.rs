//! Reading certificates and private keys from PEM files.
//!
//! Most files that cannot be used fall into a few kinds: encrypted, in another format, swapped, or saved by an editor
//! that adds a byte order mark. Each kind has an error that names the cause and the command that fixes it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};

/// The maximum size of a file. The bundle of all public CA certificates takes a quarter of a megabyte.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A file that cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}: {complaint}", path.display())]
pub struct FileError {
    path: PathBuf,
    complaint: Complaint,
}

/// The reason why a file cannot be used.
#[derive(Debug)]
enum Complaint {
    Unreadable(io::Error),
    TooLarge,
    Empty,
    ByteOrderMark,
    Utf16,
    /// A DER file that should hold a private key, or else a certificate.
    Der {
        is_key: bool,
    },
    Pkcs12,
    /// A key where a certificate was expected.
    KeyOnly,
    /// A certificate where a key was expected.
    CertificateOnly,
    /// No section of the expected kind, and the labels of all sections.
    NoSection {
        expected: &'static str,
        found: Vec<String>,
    },
    Damaged(String),
    Encrypted,
    UnsupportedKey {
        kind: Option<&'static str>,
    },
    Certificate(rustls::Error),
}

/// A certificate and a private key that cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(FileError),
    /// The private key cannot be used.
    #[error(transparent)]
    Key(FileError),
    /// The private key belongs to another certificate.
    #[error("the private key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the private key.
        key: PathBuf,
    },
    /// The private key belongs to a certificate that is not the first one of the file.
    #[error("the certificate that belongs to the private key in {} must be the first one in {}", key.display(), certificate.display())]
    Order {
        /// The file with the certificates.
        certificate: PathBuf,
        /// The file with the private key.
        key: PathBuf,
    },
}

/// Reads all certificates of a PEM file, at least one.
///
/// # Errors
/// [`FileError`].
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = read(path, false)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| refuse(path, damage(error)))?;
    if found.is_empty() {
        let labels = labels(&bytes);
        let has_key = labels.iter().any(|label| label.ends_with("PRIVATE KEY"));
        let none = Complaint::NoSection { expected: "CERTIFICATE", found: labels };
        return Err(refuse(path, if has_key { Complaint::KeyOnly } else { none }));
    }
    Ok(found)
}

/// Reads the trusted CA certificates of a PEM file, at least one. Also returns them as they are in the file.
///
/// # Errors
/// [`FileError`].
pub fn authorities(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), FileError> {
    let certificates = certificates(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| refuse(path, Complaint::Certificate(error)))?;
    }
    Ok((roots, certificates))
}

/// Reads the private key of a PEM file: the first one.
///
/// # Errors
/// [`FileError`].
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let bytes = read(path, true)?;
    let labels = labels(&bytes);
    let has_key =
        labels.iter().any(|label| matches!(label.as_str(), "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY"));
    let is_encrypted = labels.iter().any(|label| label == "ENCRYPTED PRIVATE KEY") && !has_key;
    if is_encrypted || lines(&bytes).any(|line| line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED")) {
        return Err(refuse(path, Complaint::Encrypted));
    }
    match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => {
            let complaint = if labels.iter().any(|label| label == "DSA PRIVATE KEY") {
                Complaint::UnsupportedKey { kind: Some("DSA") }
            } else if labels.iter().any(|label| label == "CERTIFICATE") {
                Complaint::CertificateOnly
            } else {
                Complaint::NoSection { expected: "PRIVATE KEY", found: labels }
            };
            Err(refuse(path, complaint))
        }
        Err(error) => Err(refuse(path, damage(error))),
    }
}

/// Reads a certificate, with those that lead to its CA, and its private key.
///
/// # Errors
/// [`PairError`].
pub fn certified_key(certificate: &Path, key: &Path) -> Result<CertifiedKey, PairError> {
    let chain = certificates(certificate).map_err(PairError::Certificate)?;
    let private = private_key(key).map_err(PairError::Key)?;
    let kind = unsupported_kind(private.secret_der());
    let provider = rustls::crypto::ring::default_provider();
    let signing = provider.key_provider.load_private_key(private);
    let signing = signing.map_err(|_| PairError::Key(refuse(key, Complaint::UnsupportedKey { kind })))?;
    // A certificate holds its public key as it is. Comparing them does not need a certificate that can be verified:
    // client certificates without extensions, which `openssl x509 -req` creates, have version 1.
    if let Some(public) = signing.public_key() {
        let holds_key =
            |candidate: &CertificateDer<'static>| candidate.windows(public.len()).any(|part| part == &*public);
        if !holds_key(&chain[0]) {
            let (certificate, key) = (certificate.to_owned(), key.to_owned());
            return Err(if chain.iter().any(holds_key) {
                PairError::Order { certificate, key }
            } else {
                PairError::Mismatch { certificate, key }
            });
        }
    }
    Ok(CertifiedKey::new(chain, signing))
}

/// Reads the certificate of a server like [`certified_key`]. Also refuses a certificate that no client could verify.
///
/// # Errors
/// [`PairError`].
pub fn server_key(certificate: &Path, key: &Path) -> Result<CertifiedKey, PairError> {
    let certified = certified_key(certificate, key)?;
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(_)) => Ok(certified),
        Err(error) => Err(PairError::Certificate(refuse(certificate, Complaint::Certificate(error)))),
    }
}

/// Reads a file and refuses what cannot be PEM.
fn read(path: &Path, is_key: bool) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| refuse(path, Complaint::Unreadable(error)))?;
    let complaint = match bytes.as_slice() {
        _ if bytes.len() as u64 > FILE_BYTES_MAX => Complaint::TooLarge,
        bytes if bytes.iter().all(u8::is_ascii_whitespace) => Complaint::Empty,
        [0xef, 0xbb, 0xbf, ..] => Complaint::ByteOrderMark,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Complaint::Utf16,
        // A sequence whose first element is the integer 3 with a length of two bytes.
        [0x30, 0x82, _, _, 0x02, 0x01, 0x03, ..] => Complaint::Pkcs12,
        [0x30, 0x80..=0x84, ..] => Complaint::Der { is_key },
        [0x30, length, content @ ..] if usize::from(*length) == content.len() => Complaint::Der { is_key },
        _ => return Ok(bytes),
    };
    Err(refuse(path, complaint))
}

fn refuse(path: &Path, complaint: Complaint) -> FileError {
    FileError { path: path.to_owned(), complaint }
}

fn damage(error: pem::Error) -> Complaint {
    Complaint::Damaged(match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no -----END line; the file is cut off".into(),
        pem::Error::IllegalSectionStart { .. } => "a -----BEGIN line does not end in five hyphens".into(),
        pem::Error::Base64Decode(_) => "a section is not valid base64".into(),
        error => error.to_string(),
    })
}

/// Returns the lines of a file without line breaks and surrounding whitespace.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii)
}

/// Returns the labels of the sections of a PEM file. The number of labels and their length are limited.
fn labels(bytes: &[u8]) -> Vec<String> {
    const LABELS_MAX: usize = 8;
    const LENGTH_MAX: usize = 40;
    let labels = lines(bytes).filter_map(|line| line.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----"));
    let mut found: Vec<String> = Vec::new();
    for label in labels {
        let label: String = String::from_utf8_lossy(label).chars().take(LENGTH_MAX).collect();
        if found.len() < LABELS_MAX && !found.contains(&label) {
            found.push(label);
        }
    }
    found
}

/// Returns the kind of a private key that the server does not support. `None` if the kind is unknown.
fn unsupported_kind(der: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 8] = [
        (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23], "ECDSA P-521"),
        (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a], "ECDSA secp256k1"),
        (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x21], "ECDSA P-224"),
        (&[0x06, 0x09, 0x2b, 0x24, 0x03, 0x03, 0x02, 0x08, 0x01, 0x01], "ECDSA brainpool"),
        (&[0x06, 0x03, 0x2b, 0x65, 0x71], "Ed448"),
        (&[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01], "DSA"),
        (&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a], "RSA-PSS"),
        (&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01], "RSA of this size"),
    ];
    // The identifier is in the first bytes. In the SEC1 format, it follows the 66 bytes of the secret.
    let head = &der[..der.len().min(128)];
    KINDS.iter().find(|(oid, _)| head.windows(oid.len()).any(|window| window == *oid)).map(|(_, kind)| *kind)
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) if error.kind() == io::ErrorKind::IsADirectory => {
                f.write_str("it is a directory; expected a file")
            }
            Self::Unreadable(error) => error.fmt(f),
            Self::TooLarge => write!(f, "it is larger than {} MiB", FILE_BYTES_MAX >> 20),
            Self::Empty => f.write_str("the file is empty"),
            Self::ByteOrderMark => f.write_str(
                "it begins with a byte order mark (BOM); save it as UTF-8 without BOM, for example with: sed -i '1s/^\\xEF\\xBB\\xBF//' FILE",
            ),
            Self::Utf16 => f.write_str("it is UTF-16 text; save it as plain ASCII or UTF-8"),
            Self::Der { is_key: true } => f.write_str(
                "it is in DER format; convert it to PEM with: openssl pkey -inform DER -in FILE -out FILE.pem",
            ),
            Self::Der { is_key: false } => f.write_str(
                "it is in DER format; convert it to PEM with: openssl x509 -inform DER -in FILE -out FILE.pem",
            ),
            Self::Pkcs12 => f.write_str(
                "it is a PKCS#12 file; convert it to PEM with: openssl pkcs12 -noenc -in FILE -out FILE.pem",
            ),
            Self::KeyOnly => f.write_str(
                "it holds a private key and no certificate; certificate and key may have been swapped",
            ),
            Self::CertificateOnly => f.write_str(
                "it holds a certificate and no private key; certificate and key may have been swapped",
            ),
            Self::NoSection { expected, found } if found.is_empty() => {
                write!(f, "expected PEM with a section -----BEGIN {expected}-----, found no section")
            }
            Self::NoSection { expected, found } => {
                write!(f, "expected a section -----BEGIN {expected}-----, found only {}", found.join(", "))
            }
            Self::Damaged(what) => write!(f, "it is damaged: {what}"),
            Self::Encrypted => f.write_str(
                "the private key is encrypted, and the server cannot ask for a passphrase; decrypt it with: openssl pkey -in \
                 FILE -out FILE.plain",
            ),
            Self::UnsupportedKey { kind } => {
                let kind = kind.unwrap_or("unknown or damaged");
                write!(
                    f,
                    "the private key is not supported ({kind}); expected RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, or \
                     Ed25519"
                )
            }
            Self::Certificate(error) => write!(f, "a certificate in it cannot be used: {}", reason(error)),
        }
    }
}

/// Returns the cause of an error without the names that the library adds.
fn reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(cause)) => cause.to_string(),
        rustls::Error::InvalidCertificate(cause) => cause.to_string(),
        error => error.to_string(),
    }
}

impl std::error::Error for Complaint {}

#[cfg(test)]
mod tests;

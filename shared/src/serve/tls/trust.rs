//! The verification of server certificates on every TLS connection that this program opens.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use webpki::{EndEntityCert, InvalidNameContext};

use super::files::{self, FileError};

/// The CA certificates that a client trusts. The default is the public CAs.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The roots of trust; `None` for the public CAs.
    roots: Option<Arc<RootCertStore>>,
    /// The certificates of the file. Each is also trusted as the certificate of a server.
    listed: Arc<[CertificateDer<'static>]>,
}

/// The public CAs. They take about 150 KB and are created once.
static PUBLIC: LazyLock<Arc<RootCertStore>> =
    LazyLock::new(|| Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()));

impl Trust {
    /// Trusts the certificates of a PEM file and no others, or the public CAs if there is no file.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn of(file: Option<&Path>) -> Result<Self, FileError> {
        let Some(path) = file else { return Ok(Self::default()) };
        let (roots, listed) = files::authorities(path)?;
        Ok(Self { roots: Some(Arc::new(roots)), listed: listed.into() })
    }

    /// Trusts the public CAs, and the certificates of a PEM file if there is one.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn public_and(file: Option<&Path>) -> Result<Self, FileError> {
        let Some(path) = file else { return Ok(Self::default()) };
        let (mut roots, listed) = files::authorities(path)?;
        roots.extend(PUBLIC.roots.iter().cloned());
        Ok(Self { roots: Some(Arc::new(roots)), listed: listed.into() })
    }

    /// Returns the TLS settings of a client with this trust. `identity`: the client certificate, for a server that
    /// requires one.
    ///
    /// # Errors
    /// If rustls supports no protocol version, which only a change of the libraries can cause.
    pub fn client(&self, identity: Option<CertifiedKey>) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(provider)?));
        Ok(match identity {
            Some(identity) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
            None => config.with_no_client_auth(),
        })
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Verifier, rustls::Error> {
        let roots = self.roots.as_ref().unwrap_or(&PUBLIC).clone();
        let chains = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        let chains = chains.map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Verifier { chains, listed: self.listed.clone() })
    }
}

/// Verifies chains up to a trusted CA. Also accepts a certificate that is itself in the list of trusted ones.
///
/// `openssl req -x509` creates a certificate that is its own CA. The library refuses a CA's certificate as the
/// certificate of a server, while OpenSSL, and with it curl, Node.js and Python, accepts it.
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    listed: Arc<[CertificateDer<'static>]>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verified.or_else(|error| match error {
            rustls::Error::InvalidCertificate(refusal) => {
                let is_listed = self.listed.contains(end_entity);
                verify_single(end_entity, server_name, refusal, is_listed).map_err(rustls::Error::InvalidCertificate)
            }
            error => Err(error),
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Verifies a certificate that was refused as the end of a chain. It is accepted only if it is listed byte for byte.
///
/// The library checks the dates first, then the chain, and the name last. The first two refusals below therefore imply
/// valid dates.
fn verify_single(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    refusal: CertificateError,
    is_listed: bool,
) -> Result<ServerCertVerified, CertificateError> {
    let parsed = EndEntityCert::try_from(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let is_ca = is_ca_refused(&refusal);
    if !is_listed {
        let is_self_signed = is_ca && parsed.issuer() == parsed.subject();
        return Err(if is_self_signed { CertificateError::UnknownIssuer } else { refusal });
    }
    let refusal = match refusal {
        refusal if !is_ca && refusal != CertificateError::UnknownIssuer => refusal,
        _ => match parsed.verify_is_valid_for_subject_name(name) {
            Ok(()) => return Ok(ServerCertVerified::assertion()),
            Err(webpki::Error::CertNotValidForName(InvalidNameContext { expected, presented })) => {
                CertificateError::NotValidForNameContext { expected, presented }
            }
            Err(_) => CertificateError::NotValidForName,
        },
    };
    let is_other_name =
        matches!(refusal, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. });
    if is_other_name && is_named_by_subject(&parsed, name) {
        return Ok(ServerCertVerified::assertion());
    }
    Err(refusal)
}

/// Returns whether the library refused the certificate of a CA as the certificate of a server.
fn is_ca_refused(refusal: &CertificateError) -> bool {
    let CertificateError::Other(cause) = refusal else { return false };
    matches!(cause.0.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Returns whether a certificate without alternative names has this name as the common name of its subject.
///
/// OpenSSL accepts such a certificate, and `openssl req -x509` creates no alternative names by default.
fn is_named_by_subject(certificate: &EndEntityCert<'_>, name: &ServerName<'_>) -> bool {
    /// The identifier of the extension for alternative names.
    const ALTERNATIVE_NAMES: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x11];
    if certificate.der().windows(ALTERNATIVE_NAMES.len()).any(|part| part == ALTERNATIVE_NAMES) {
        return false;
    }
    let Some(common_name) = common_name(certificate.subject()) else { return false };
    let name = name.to_str();
    match common_name.strip_prefix("*.") {
        Some(parent) => name.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => common_name.eq_ignore_ascii_case(&name),
    }
}

/// Returns the last common name of a subject, which is a sequence of sets of pairs of identifier and text.
fn common_name(mut subject: &[u8]) -> Option<&str> {
    const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
    let mut found = None;
    while !subject.is_empty() {
        let mut set = element(&mut subject)?;
        while !set.is_empty() {
            let mut pair = element(&mut set)?;
            if element(&mut pair)? == COMMON_NAME {
                found = std::str::from_utf8(element(&mut pair)?).ok();
            }
        }
    }
    found
}

/// Removes one DER element from the beginning of `input` and returns its content.
fn element<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = match **input {
        [_, length @ 0..=0x7f, ref rest @ ..] => (usize::from(length), rest),
        [_, 0x81, length, ref rest @ ..] => (usize::from(length), rest),
        [_, 0x82, high, low, ref rest @ ..] => (usize::from(u16::from_be_bytes([high, low])), rest),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(content)
}

#[cfg(test)]
mod tests;

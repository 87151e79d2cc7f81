//! Signatures of HTTP API requests.
//!
//! Source: protocol reference 4.1.

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;

use crate::app::App;
use crate::secret::{Signature, constant_time_eq};

/// The maximum difference between a request's timestamp and the server's clock in seconds, exclusive.
pub const TIMESTAMP_WINDOW_S: u64 = 600;

/// The query of a signed request.
#[derive(Clone, Debug)]
pub struct SignedQuery {
    params: Params,
    /// The parameters without decoding, if that makes a difference. The libraries for Node and Python do not encode a
    /// plus sign in a key.
    verbatim: Option<Params>,
    signature: Option<String>,
}

/// All parameters except the signature: lower-case names in byte order, each with its values in order of appearance.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Params(BTreeMap<String, Vec<String>>);

/// The reason why a request was refused with 401.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestAuthError {
    /// A required parameter is missing.
    #[error("parameter {0} is missing")]
    Missing(&'static str),
    /// A parameter of the signature is repeated.
    #[error("parameter {0} is repeated")]
    Repeated(&'static str),
    /// The key is not the app's.
    #[error("auth_key is unknown")]
    UnknownKey,
    /// The version is not `1.0`.
    #[error("auth_version is not supported")]
    Version,
    /// The timestamp is not a number.
    #[error("auth_timestamp is not a number of seconds")]
    TimestampFormat,
    /// The timestamp is too far from the server's clock.
    #[error("auth_timestamp is not within {TIMESTAMP_WINDOW_S}s of the server time")]
    TimestampExpired {
        /// The timestamp of the request in Unix seconds.
        given_s: u64,
        /// The server's clock in Unix seconds.
        now_s: u64,
    },
    /// The digest is wrong. `expected_over` is the text that should have been signed. It contains no secret.
    #[error("signature does not match")]
    Signature {
        /// The text that the signature should cover.
        expected_over: String,
    },
    /// The body is not the one that was signed.
    #[error("body_md5 does not match the body")]
    BodyMd5,
}

impl RequestAuthError {
    /// Returns the text for the caller.
    pub fn client_text(&self) -> String {
        match self {
            Self::Missing("auth_version") => "Version required".into(),
            Self::Missing("auth_timestamp") => "Timestamp required".into(),
            Self::Missing(name) => format!("Missing parameter: {name}"),
            Self::Repeated(name) => format!("Parameter {name} was given more than once"),
            Self::UnknownKey => "Unknown auth_key".into(),
            Self::Version => "Version not supported".into(),
            Self::TimestampFormat => "Timestamp is not a number of seconds".into(),
            Self::TimestampExpired { given_s, now_s } => format!(
                "Timestamp expired: Given timestamp ({given_s}) not within {TIMESTAMP_WINDOW_S}s of server time ({now_s})"
            ),
            Self::Signature { expected_over } => {
                // It is unknown which of the two is wrong. The correct digest must not be shown, because it would be a
                // valid signature.
                format!(
                    "Invalid signature: the request was signed with another secret than the app's, or changed after that. \
                     You should have sent HmacSHA256Hex({expected_over:?}, your_secret_key)"
                )
            }
            Self::BodyMd5 => "Invalid body_md5: it does not match the MD5 digest of the body".into(),
        }
    }

    /// Returns the error as a metric label.
    pub fn cause_label(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Repeated(_) => "repeated",
            Self::UnknownKey => "key",
            Self::Version => "version",
            Self::TimestampFormat | Self::TimestampExpired { .. } => "timestamp",
            Self::Signature { .. } => "signature",
            Self::BodyMd5 => "body_md5",
        }
    }
}

impl SignedQuery {
    /// Decodes the raw query string after the `?`. It never fails: [`Self::verify_head`] reports missing parameters.
    pub fn parse(query: &str) -> Self {
        let decoded = form_urlencoded::parse(query.as_bytes());
        let (params, signature) = Params::new(decoded.map(|(name, value)| (name.into_owned(), value.into_owned())));
        let verbatim = query.contains(['+', '%']).then(|| {
            let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            Params::new(pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))).0
        });
        Self { verbatim: verbatim.filter(|verbatim| *verbatim != params), params, signature }
    }

    /// Returns the first value of a parameter, by its lower-case name.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.0.get(name)?.first().map(String::as_str)
    }

    /// Checks the signature and the timestamp. The signature covers the digest of the body, so the body is needed only
    /// for [`Self::verify_body`].
    ///
    /// `path`: the raw path without the query. `now_s`: the server's clock in Unix seconds. Libraries sign different
    /// forms of the path. Four forms are accepted: the whole path, the path from `/apps/` on, and both of them
    /// percent-decoded.
    ///
    /// # Errors
    /// [`RequestAuthError`], in the order key, version, timestamp, signature.
    pub fn verify_head(&self, app: &App, method: &str, path: &str, now_s: u64) -> Result<(), RequestAuthError> {
        let signature = self.signature.as_deref();
        let checked = self.params.verify(app, method, path, now_s, signature);
        match (&checked, &self.verbatim) {
            (Err(RequestAuthError::UnknownKey | RequestAuthError::Signature { .. }), Some(verbatim)) => {
                verbatim.verify(app, method, path, now_s, signature).or(checked)
            }
            _ => checked,
        }
    }

    /// Checks that the body is the signed one, after [`Self::verify_head`] has accepted the signature.
    ///
    /// # Errors
    /// [`RequestAuthError`] for `body_md5`.
    pub fn verify_body(&self, body: &[u8]) -> Result<(), RequestAuthError> {
        let digest = match self.params.0.get("body_md5").map(Vec::as_slice) {
            None if body.is_empty() => return Ok(()),
            None => return Err(RequestAuthError::Missing("body_md5")),
            Some([digest]) => digest,
            Some(_) => return Err(RequestAuthError::Repeated("body_md5")),
        };
        let fits = (digest.is_empty() && body.is_empty()) || constant_time_eq(digest, &body_md5(body));
        if fits { Ok(()) } else { Err(RequestAuthError::BodyMd5) }
    }
}

impl Params {
    /// Sorts the parameters and removes the signature.
    fn new(pairs: impl Iterator<Item = (String, String)>) -> (Self, Option<String>) {
        let mut params: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (mut name, value) in pairs {
            name.make_ascii_lowercase();
            params.entry(name).or_default().push(value);
        }
        let signature = params.remove("auth_signature").and_then(|mut values| values.pop());
        (Self(params), signature)
    }

    fn verify(
        &self,
        app: &App,
        method: &str,
        path: &str,
        now_s: u64,
        signature: Option<&str>,
    ) -> Result<(), RequestAuthError> {
        let key = self.single("auth_key")?;
        if !constant_time_eq(key, app.key.as_str()) {
            return Err(RequestAuthError::UnknownKey);
        }
        if self.single("auth_version")? != "1.0" {
            return Err(RequestAuthError::Version);
        }
        let given_s: u64 = self.single("auth_timestamp")?.parse().map_err(|_| RequestAuthError::TimestampFormat)?;
        if now_s.abs_diff(given_s) >= TIMESTAMP_WINDOW_S {
            return Err(RequestAuthError::TimestampExpired { given_s, now_s });
        }
        let signature = signature.ok_or(RequestAuthError::Missing("auth_signature"))?;
        self.verify_signature(app, method, path, signature)
    }

    fn single(&self, name: &'static str) -> Result<&str, RequestAuthError> {
        match self.0.get(name).map(Vec::as_slice) {
            None => Err(RequestAuthError::Missing(name)),
            Some([value]) => Ok(value),
            Some(_) => Err(RequestAuthError::Repeated(name)),
        }
    }

    fn verify_signature(&self, app: &App, method: &str, path: &str, signature: &str) -> Result<(), RequestAuthError> {
        let first = signed_text(method, path, &self.joined(repeated));
        let Some(signature) = Signature::from_hex(signature) else {
            return Err(RequestAuthError::Signature { expected_over: first });
        };
        if app.secret.verifies(&[first.as_bytes()], &signature) {
            return Ok(());
        }
        let stripped = path.find("/apps/").map_or(path, |start| &path[start..]);
        let mut paths = vec![path.to_owned(), stripped.to_owned()];
        for path in [path, stripped] {
            paths.push(percent_decode_str(path).decode_utf8_lossy().into_owned());
        }
        paths.dedup();
        let fits = [self.joined(repeated), self.joined(comma_joined)].iter().any(|params| {
            paths.iter().any(|path| app.secret.verifies(&[signed_text(method, path, params).as_bytes()], &signature))
        });
        if fits { Ok(()) } else { Err(RequestAuthError::Signature { expected_over: first }) }
    }

    fn joined(&self, array: fn(&str, &[String]) -> String) -> String {
        let pairs: Vec<String> = self
            .0
            .iter()
            .map(|(name, values)| match values.as_slice() {
                [value] => format!("{name}={value}"),
                values => array(name, values),
            })
            .collect();
        pairs.join("&")
    }
}

/// Returns the query string that signs a request, like the official server libraries append it to their URLs.
///
/// `path`: the path without a prefix. `params`: further query parameters, not encoded.
pub fn signed_query(app: &App, method: &str, path: &str, params: &[(&str, &str)], body: &[u8], now_s: u64) -> String {
    let mut all: BTreeMap<String, String> =
        params.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())).collect();
    all.insert("auth_key".into(), app.key.to_string());
    all.insert("auth_timestamp".into(), now_s.to_string());
    all.insert("auth_version".into(), "1.0".into());
    if !body.is_empty() {
        all.insert("body_md5".into(), body_md5(body));
    }
    let plain: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let signature = app.secret.sign(&[signed_text(method, path, &plain.join("&")).as_bytes()]);
    all.insert("auth_signature".into(), signature.to_hex());
    form_urlencoded::Serializer::new(String::new()).extend_pairs(&all).finish()
}

fn signed_text(method: &str, path: &str, params: &str) -> String {
    format!("{}\n{path}\n{params}", method.to_ascii_uppercase())
}

/// pusher-signature (Ruby) signs each value of an array under `name[]`.
fn repeated(name: &str, values: &[String]) -> String {
    let pairs: Vec<String> = values.iter().map(|value| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// pusher-http-php joins the values of an array with commas.
fn comma_joined(name: &str, values: &[String]) -> String {
    format!("{}={}", name.strip_suffix("[]").unwrap_or(name), values.join(","))
}

fn body_md5(body: &[u8]) -> String {
    hex::encode(Md5::digest(body))
}

#[cfg(test)]
mod tests;

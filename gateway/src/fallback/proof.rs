//! Signatures that prove to another node that a request or a response comes from a node of the cluster.

use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::HeaderName;
use shared::secret::{Secret, Signature};

/// The header of a forwarded request, `seconds.signature`, and of the response to it.
pub(super) const PROOF: HeaderName = HeaderName::from_static("x-carillon-passed-on");

/// The maximum age of a proof, in seconds. It covers the clock skew between nodes and the time in transit.
const AGE_MAX_S: u64 = 60;

/// Returns the current Unix time in seconds.
pub(super) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Signs a request.
pub(super) fn sign(secret: &Secret, path: &str, body: &[u8], now_s: u64) -> String {
    format!("{now_s}.{}", secret.sign(&signed_parts(&now_s.to_string(), path, body)).to_hex())
}

/// Whether a proof is recent and its signature is valid for the request.
pub(super) fn verify(secret: &Secret, path: &str, body: &[u8], proof: &str, now_s: u64) -> bool {
    let Some((at, signature)) = parse_recent(proof, now_s) else { return false };
    secret.verifies(&signed_parts(at, path, body), &signature)
}

/// Whether a proof is well-formed and recent. This can be checked before the body of the request is read.
pub(super) fn is_recent(proof: &str, now_s: u64) -> bool {
    parse_recent(proof, now_s).is_some()
}

/// Signs the response to a request with this proof.
pub(super) fn sign_response(secret: &Secret, proof: &str) -> String {
    secret.sign(&[b"answered\n", proof.as_bytes()]).to_hex()
}

/// Returns the time and the signature of a proof, or `None` if it is malformed or not recent.
fn parse_recent(proof: &str, now_s: u64) -> Option<(&str, Signature)> {
    let (at, signature) = proof.split_once('.')?;
    let at_s: u64 = at.parse().ok()?;
    (at_s.abs_diff(now_s) <= AGE_MAX_S).then_some((at, Signature::from_hex(signature)?))
}

/// Returns the signed parts of a request. No other text that is signed with an app's secret has the same prefix.
fn signed_parts<'a>(at: &'a str, path: &'a str, body: &'a [u8]) -> [&'a [u8]; 6] {
    [b"passed-on\n", at.as_bytes(), b"\n", path.as_bytes(), b"\n", body]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_knows_the_secret_can_sign_a_request() {
        let (secret, path) = (Secret::new("secret"), "/pusher/app/KEY/1/a/xhr?n=1");
        let body = b"[]".as_slice();
        let proof = sign(&secret, path, body, 1000);
        assert!(verify(&secret, path, body, &proof, 1000));
        assert!(verify(&secret, path, body, &proof, 1060) && verify(&secret, path, body, &proof, 940));
        assert!(!verify(&secret, path, body, &proof, 1061) && !verify(&secret, path, body, &proof, 939));
        assert!(!verify(&Secret::new("other"), path, body, &proof, 1000));
        assert!(!verify(&secret, "/pusher/app/KEY/1/b/xhr?n=1", body, &proof, 1000));
        assert!(!verify(&secret, path, b"[\"\"]", &proof, 1000));
        for malformed in ["", ".", "1000.", "1000.zz", "x.00", &proof.replace("1000", "1001")] {
            assert!(!verify(&secret, path, body, malformed, 1000), "{malformed}");
        }
    }
}

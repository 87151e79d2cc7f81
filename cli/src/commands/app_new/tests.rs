use std::collections::HashSet;

use shared::app::App;

use super::*;
use crate::config::Config;

fn fresh() -> Credentials {
    Credentials::generate(None, &mut rand::rng()).unwrap()
}

#[test]
fn credentials_have_the_form_of_pushers_and_do_not_repeat() {
    let mut seen = HashSet::new();
    for _ in 0..100 {
        let Credentials { id, key, secret } = fresh();
        assert!(id.len() >= 6 && id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
        for (text, length) in [(&key, 20), (&secret, 32)] {
            let fits = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            assert!(text.len() == length && fits, "{text}");
        }
        assert!(seen.insert(key) && seen.insert(secret));
    }
}

#[test]
fn a_given_id_is_used_if_a_url_can_contain_it() {
    let of = |id| Credentials::generate(Some(id), &mut rand::rng()).map(|credentials| credentials.id);
    assert_eq!(of("shop").unwrap(), "shop");
    let failure = of("my shop").unwrap_err();
    assert_eq!(failure.exit_code(), 2);
    assert!(failure.to_string().starts_with("--id: expected one or more letters"), "{failure}");
}

#[test]
fn the_printed_credentials_are_valid_configuration() {
    let credentials = fresh();
    let text = credentials.text();
    let (toml, env) = text.split_once("\n\n").unwrap();
    let config: Config = toml::from_str(toml).unwrap();
    let [App { id, key, secret, .. }] = config.apps.as_slice() else { panic!("{} apps", config.apps.len()) };
    assert_eq!((id.as_str(), key.as_str(), secret.reveal()), {
        let Credentials { id, key, secret } = &credentials;
        (id.as_str(), key.as_str(), secret.as_str())
    });
    for line in [
        format!("REVERB_APP_ID={}", credentials.id),
        format!("REVERB_APP_KEY={}", credentials.key),
        format!("REVERB_APP_SECRET={}", credentials.secret),
        "REVERB_HOST=127.0.0.1".into(),
        "REVERB_PORT=8080".into(),
        "REVERB_SCHEME=http".into(),
    ] {
        assert!(env.lines().any(|printed| printed == line), "{line} in {env}");
    }
}

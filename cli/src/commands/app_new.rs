//! `carillon app new`: generates credentials.

use rand::{CryptoRng, Rng};
use shared::config::{ConfigError, Mistake};

use crate::args::AppNew;
use crate::config;
use crate::output::{Failure, print};

/// Prints the credentials of a new app. They are not stored.
pub(crate) fn run(args: &AppNew) -> Result<(), Failure> {
    let credentials = Credentials::generate(args.id.as_deref(), &mut rand::rng())?;
    print(&credentials.text());
    Ok(())
}

struct Credentials {
    id: String,
    key: String,
    secret: String,
}

/// The length of Pusher's keys.
const KEY_LENGTH: usize = 20;
/// The length of secrets. 32 of 36 possible characters have 165 bits.
const SECRET_LENGTH: usize = 32;

impl Credentials {
    fn generate(id: Option<&str>, rng: &mut impl CryptoRng) -> Result<Self, Failure> {
        let id = match id {
            Some(id) if config::is_name(id) => id.to_owned(),
            Some(id) => {
                let mistake = Mistake::new("--id", format!("{}, not {id:?}", config::NAME_EXPECTED));
                return Err(ConfigError::from(mistake).into());
            }
            None => rng.random_range(100_000..1_000_000_000u32).to_string(),
        };
        Ok(Self { id, key: random_text(KEY_LENGTH, rng), secret: random_text(SECRET_LENGTH, rng) })
    }

    fn text(&self) -> String {
        let Self { id, key, secret } = self;
        format!(
            "# carillon.toml, for `carillon up --config carillon.toml`\n\
             [[apps]]\n\
             id = \"{id}\"\n\
             key = \"{key}\"\n\
             secret = \"{secret}\"\n\
             \n\
             # .env of Laravel, also for `carillon up --env-file .env`\n\
             BROADCAST_CONNECTION=reverb\n\
             REVERB_APP_ID={id}\n\
             REVERB_APP_KEY={key}\n\
             REVERB_APP_SECRET={secret}\n\
             REVERB_HOST=127.0.0.1\n\
             REVERB_PORT=8080\n\
             REVERB_SCHEME=http\n"
        )
    }
}

/// Returns a random text of lower-case letters and digits.
fn random_text(length: usize, rng: &mut impl CryptoRng) -> String {
    const CHARACTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    (0..length).map(|_| char::from(CHARACTERS[rng.random_range(0..CHARACTERS.len())])).collect()
}

#[cfg(test)]
mod tests;

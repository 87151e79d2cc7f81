//! Integration tests, one file per subject. All of them connect to the real binary in a separate process.

mod admin;
mod bad_input;
mod cache_and_counts;
mod cli;
mod cluster;
mod drain;
mod fallback;
mod fanout;
mod front;
mod handshake;
mod harness;
mod laravel;
mod liveness;
mod make;
mod operator;
mod presence;
mod publisher_front;
mod self_signed;
mod socket_activation;
mod tidy;
mod users;
mod webhooks;

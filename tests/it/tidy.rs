//! Rules for the source that no compiler checks.

mod close_codes;
mod crates;
mod files;
mod graph;
mod imports;
mod layers;
mod lengths;
mod links;
mod prose;
mod words;

//! What the tests of faults stand on must itself be true: a proxy that breaks connections in the ways that it names, a
//! Redis that can be killed, paused and started again, and an nginx that splits what it is asked.

mod nginx;
mod proxy;
mod redis;

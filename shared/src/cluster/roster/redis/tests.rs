mod dead_nodes;
mod quotas;

use crate::cluster::redis::server::RedisCluster;

crate::roster_contract!(RedisCluster::new().await);

mod deaths;
mod quotas;

use crate::redis::server::RedisCluster;

crate::roster_contract!(RedisCluster::new().await);

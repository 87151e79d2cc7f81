use crate::redis::server::RedisCluster;

crate::bus_contract!(RedisCluster::new().await);

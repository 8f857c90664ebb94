# A shared-core machine is enough for a few gates; docs/benchmarks.md shows what a scan needs. For more, raise db_tier,
# db_max_connections and max_instances together. Project, repository, image and secrets come from the environment.
db_tier            = "db-g1-small"
db_max_connections = 50
db_pool_max        = 5
max_instances      = 4

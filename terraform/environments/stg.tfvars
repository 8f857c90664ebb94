# The smallest database tier. Project, repository, image and secrets come from the environment: TF_VAR_project_id …
db_tier            = "db-f1-micro"
db_max_connections = 25
db_pool_max        = 4
max_instances      = 2

# One workspace for each environment: register-ticket-api/stg.tfstate and register-ticket-api/prd.tfstate. To use another
# bucket: terraform init -backend-config=bucket=…
terraform {
  backend "gcs" {
    bucket = "event-access-tfstate"
    prefix = "register-ticket-api"
  }
}

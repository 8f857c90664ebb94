-- Creates the service's login, which owns nothing. PostgreSQL's image runs this once, on an empty volume.
-- `register-ticket-api migrate` then makes the login a member of ticket_service, the role with the service's rights.
\getenv password DB_PASSWORD
create role tickets_service login password :'password';

-- PostgreSQL's image runs this once, on an empty volume: the login of the service, which owns nothing.
-- `register-ticket-api migrate` then makes it a member of ticket_service, the role with the service's rights.
\getenv password DB_PASSWORD
create role tickets_service login password :'password';

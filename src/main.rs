use register_ticket_api::*;
use std::sync::Arc;

fn main() -> anyhow::Result<()> {
    let settings = config::Settings::from_env()?;
    logs::start(&settings);
    let app = Arc::new(app::App::new(settings, Box::new(model::Millis::now)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some() {
            serve::lambda(app).await
        } else {
            serve::http(app).await
        }
    })
}

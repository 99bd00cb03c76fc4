//! Wires the parts together: one `App` serves the terminal, one question, or the web.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use tokio::sync::watch;

use crate::{
    config::watch::{self as config_watch, Loaded},
    llm::{Model, client::Client, none::NoModel},
    metrics::Metrics,
    settings::Settings,
    tools::hub::Hub,
    turn::{cache::ResponseCache, machine::Limits, run::Engine},
    usage::{self, Budget, Ledger},
};

/// Everything that the user interfaces share.
#[derive(Debug)]
pub struct App {
    pub settings: Settings,
    pub engine: Engine,
    /// There is no model: nothing can be asked.
    pub is_gateway: bool,
    pub config: watch::Receiver<Loaded>,
}

impl App {
    /// Reads the configuration, starts connecting to its servers, and follows it. `is_served`: others connect to it, by /mcp, so that it is
    /// of use without a model.
    pub fn start(settings: Settings, loaded: Loaded, is_served: bool) -> anyhow::Result<Arc<Self>> {
        let is_gateway = is_served && settings.is_gateway();
        let model: Arc<dyn Model> = if is_gateway {
            Arc::new(NoModel)
        } else {
            Arc::new(Client::new(settings.model_settings()?).context("cannot make an HTTP client")?)
        };
        let metrics = Arc::new(Metrics::default());
        let hub = Hub::new(settings.first_seen(), is_served).context("cannot make an HTTP client")?;
        hub.apply(&loaded.config);
        metrics.config_good.set(1);
        // Half a second of decoding that would otherwise delay the first answer.
        tokio::task::spawn_blocking(crate::usage::price::load);
        let (sender, config) = watch::channel(loaded);
        tokio::spawn(config_watch::follow(settings.config.clone(), sender));
        tokio::spawn(take_over(config.clone(), Arc::clone(&hub), Arc::clone(&metrics)));
        let budget = Budget { tokens_per_day: settings.budget_tokens_per_day, alert_percent: settings.budget_alert_percent };
        let ledger = Arc::new(Ledger::new(budget));
        if let Some(path) = settings.usage_file() {
            usage::file::keep(Arc::clone(&ledger), path);
        }
        let engine = Engine {
            model,
            hub,
            ledger,
            cache: ResponseCache::new(Duration::from_secs(settings.cache_seconds)),
            metrics,
            system_prompt: settings.system_prompt.clone(),
            room: settings.room(),
            audit_arguments: settings.audit_arguments,
            limits: Limits { rounds: settings.max_rounds, ..Limits::default() },
        };
        Ok(Arc::new(Self { settings, engine, is_gateway, config }))
    }

    /// Says who answers, where that is not the usual one.
    pub fn who_answers(&self) -> String {
        if self.is_gateway {
            return "nobody: this is a gateway without a model".to_owned();
        }
        let base_url = crate::redact::redact(self.settings.model_base_url().as_str()).into_owned();
        format!("{} at {}", self.engine.model.name(), base_url.trim_end_matches('/'))
    }

    /// Disconnects from every server, and keeps what is to be kept.
    pub async fn stop(&self) {
        if let Some(path) = self.settings.usage_file()
            && let Err(error) = usage::file::write(&self.engine.ledger, &path)
        {
            tracing::error!("the account cannot be kept in {}: {error}", path.display());
        }
        self.engine.hub.shutdown(Duration::from_secs(5)).await;
    }
}

async fn take_over(mut config: watch::Receiver<Loaded>, hub: Arc<Hub>, metrics: Arc<Metrics>) {
    while config.changed().await.is_ok() {
        let loaded = config.borrow_and_update().clone();
        let good = loaded.problem.is_none();
        metrics.config_good.set(i64::from(good));
        metrics.config_reloads.with_label_values(&[if good { "ok" } else { "rejected" }]).inc();
        if good {
            hub.apply(&loaded.config);
        }
    }
}

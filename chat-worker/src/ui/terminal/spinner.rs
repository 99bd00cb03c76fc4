//! What goes on while nothing is written: a line that turns and counts the seconds, and goes again. For terminals only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The line, while there is one.
#[derive(Debug, Default)]
pub struct Spinner(Option<ProgressBar>);

impl Spinner {
    /// Shows what goes on; the time goes on where the line is there already.
    pub fn show(&mut self, what: &str) {
        let bar = self.0.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            let style = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        bar.set_message(what.to_owned());
    }

    /// Takes the line away, so that something can be written.
    pub fn clear(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

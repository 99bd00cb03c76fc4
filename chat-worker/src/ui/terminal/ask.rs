//! One question, answered once: for scripts and for people in a hurry.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use http_server::request_id;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    config::rules::Approvals,
    limits, numbers,
    turn::{driver::Turn, event::Event, machine::Outcome, transcript::Transcript},
    ui::summary::{Gathered, summary},
};

/// Servers get this long to connect before the question is asked without them.
const SETTLE: Duration = Duration::from_secs(15);

/// What shells say of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Answered, but not with all the tools that the model called for.
const NOT_ALLOWED: u8 = 3;

/// Answers one question; 0 when it was answered, 3 when a tool was not allowed to run for it, 130 when Ctrl-C came first, else 1. A question of `-` is read from standard input.
pub async fn ask(app: &Arc<App>, question: &str, json: bool, yes: bool) -> anyhow::Result<ExitCode> {
    let mut piped = String::new();
    let question = if question == "-" {
        io::stdin().read_to_string(&mut piped)?;
        piped.trim_end()
    } else {
        question
    };
    limits::check_message(question, app.settings.max_message_chars as usize)?;
    app.engine.hub.settle(SETTLE).await;
    let cancel = CancellationToken::new();
    let (on_interrupt, done) = (cancel.clone(), cancel.clone().drop_guard());
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_interrupt.cancel();
        }
    });
    let (sender, mut events) = mpsc::channel(64);
    let turn = Turn {
        request_id: request_id::new(),
        transcript: Transcript::default(),
        say: Some(question.into()),
        approvals: match app.settings.approvals {
            Approvals::Ask if yes => Approvals::Always,
            setting => setting,
        },
        unattended: true,
        caller: "terminal".to_owned(),
        always: HashSet::new(),
        decided: None,
        shown: HashMap::new(),
        decisions: None,
        model: None,
        cache: false,
        cancel,
    };
    let printing = async {
        let (mut seen, mut told) = (Gathered::default(), Ok(()));
        let (mut renderer, mut aside) = (super::renderer(), super::aside());
        while let Some(event) = events.recv().await {
            if json {
                seen.take(event);
            } else if told.is_ok() {
                // What cannot be written any more is an answer all the same: the turn comes to its end.
                told = match event {
                    // Whoever reads the answer by a pipe reads these at the terminal; where that is gone, there is nobody to tell.
                    Event::Error { .. } | Event::Restart { .. } | Event::Notice { .. } => {
                        renderer.end_line().inspect(|()| drop(aside.show(&event)))
                    }
                    _ => renderer.show(&event),
                };
            }
        }
        (seen, told)
    };
    let (finished, (seen, mut told)) = tokio::join!(app.engine.run(turn, sender), printing);
    drop(done);
    if json {
        told = writeln!(io::stdout(), "{}", numbers::release(&summary(seen.events()).to_string()));
    }
    match told.and_then(|()| io::stdout().flush()) {
        Ok(()) => {}
        // A reader that has gone has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            eprintln!("The answer could not be written: {error}");
            return Ok(ExitCode::FAILURE);
        }
    }
    if let Ok(outcome) = &finished.outcome
        && let Some(words) = outcome.in_words()
    {
        let (first, rest) = words.split_at(1);
        eprintln!("{}{rest}.", first.to_ascii_uppercase());
    }
    let code = match finished.outcome {
        Ok(Outcome::Complete) if finished.refused > 0 => ExitCode::from(NOT_ALLOWED),
        Ok(Outcome::Complete) => ExitCode::SUCCESS,
        Ok(Outcome::Cancelled) => ExitCode::from(INTERRUPTED),
        _ => ExitCode::FAILURE,
    };
    if finished.refused > 0 && !json {
        let advice = match app.settings.approvals {
            Approvals::Never => "CHAT_APPROVALS=never allows none.",
            _ => "Add --yes to allow those that would be asked about.",
        };
        eprintln!("A tool that may change data was not allowed to run. {advice}");
    }
    Ok(code)
}

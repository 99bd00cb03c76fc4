//! The step `apply`: every child to where it is to be, what is no longer wanted away; one result a child. I/O out.
//!
//! A child that cannot be applied holds up nobody, except who would mount somebody else's object of its name.

use crate::{
    child::{Child, KINDS, Key},
    problem::Problem,
    ssa::{Correction, Error, Writer},
};

/// What came of it.
#[derive(Debug, Default)]
pub struct Applied {
    /// What stands in the way, child by child.
    pub problems: Vec<(Key, Problem)>,
    /// What somebody else had changed of ours, and was put right.
    pub corrected: Vec<(Key, Correction)>,
}

/// Applies every child in its order (who is mounted comes before who mounts), and deletes what the CR of this uid controls and no
/// longer wants.
pub async fn all(writer: &Writer, uid: &str, children: &[Child]) -> Applied {
    let mut applied = Applied::default();
    let mut taken = Vec::new();
    for child in children {
        if child.waits || child.needs.iter().any(|kind| taken.contains(kind)) {
            continue;
        }
        match writer.apply(child).await {
            Ok(done) => {
                applied.corrected.extend(done.corrected.map(|what| (child.key.clone(), what)));
                let dropped = done.dropped.as_ref().map(|dropped| (child.key.clone(), Problem::not_applied(dropped)));
                applied.problems.extend(dropped);
            }
            Err(error) => {
                if matches!(
                    error,
                    Error::NameConflict(_) | Error::ForeignData(..) | Error::DataGoing(_) | Error::OfPredecessor(_)
                ) {
                    taken.push(child.key.kind);
                }
                applied.problems.push((child.key.clone(), Problem::not_applied(&error)));
            }
        }
    }
    // What the pods no longer mount goes after them.
    for live in writer.children.owned_by(uid) {
        if children.iter().any(|child| child.key == live.key) {
            continue;
        }
        let Some(kind) = KINDS.iter().find(|kind| kind.kind == live.key.kind) else { continue };
        if let Err(error) = writer.delete(&live, &(kind.resource)()).await {
            applied.problems.push((live.key.clone(), Problem::not_applied(&error)));
        }
    }
    applied
}

//! What an instruction asks for that this program does not do, or not without leave.

use super::Error;
use crate::dockerfile::ast::{Instruction, Kind, Run};
use crate::request::Request;

/// Refuses an instruction that is about to be carried out and cannot be.
pub(super) fn check(instruction: &Instruction, request: &Request) -> Result<(), Error> {
    // A trigger is kept, not carried out; it is checked where it fires.
    let Kind::Run(run) = &instruction.kind else {
        return Ok(());
    };
    let Run {
        command: _,
        heredocs: _,
        mounts: _,
        network: _,
        security,
        devices,
    } = run;
    if !devices.is_empty() {
        return Err(Error::at(
            instruction.span,
            "RUN --device is not yet supported",
        ));
    }
    if security.as_deref() == Some("insecure") && !request.allow_insecure {
        return Err(Error {
            span: Some(instruction.span),
            message: "RUN --security=insecure is not allowed".into(),
            hint: Some("`--allow security.insecure` allows it".into()),
        });
    }
    Ok(())
}

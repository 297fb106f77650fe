//! `gen_server` calls, out and in.
//!
//! Guarantee: a monitor is set before the request is sent, so a callee that is not there is known at once and not at the
//! deadline; a call that is given up leaves nothing behind, and a late answer to it is dropped.

use std::time::Duration;

use erl_dist::message::Message;
use etf::{Pid, Reference, Term, atom, atom_name, pid, tuple};

use super::control::Process;
use super::node::Node;
use super::peers::SendError;
use super::watches::Answer;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The node is not connected.
    #[error("not connected")]
    NotConnected,
    /// The callee ended, or was never there.
    #[error("the callee is gone: {reason}")]
    Down {
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer is not one to this call.
    #[error("an answer of another shape")]
    Shape,
    /// The request could not be sent.
    #[error("{source}")]
    Send {
        /// Why.
        #[from]
        source: SendError,
    },
}

/// A call that came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Who waits.
    pub from: Pid,
    /// Goes back with the answer.
    tag: Term,
    /// What is asked.
    pub body: Term,
}

impl Request {
    /// `{'$gen_call', {Pid, Tag}, Body}`.
    pub fn read(message: Term) -> Option<Request> {
        let [kind, from, body] = etf::elements(&message)? else {
            return None;
        };
        let [caller, tag] = etf::elements(from)? else {
            return None;
        };
        (atom_name(kind) == Some("$gen_call"))
            .then(|| Some(Request { from: pid(caller)?.clone(), tag: tag.clone(), body: body.clone() }))?
    }

    /// The alias the answer goes to: the tag is `[alias | Reference]`, or a list that begins with that.
    fn alias(&self) -> Option<&Reference> {
        fn of(tag: &Term) -> Option<&Reference> {
            match tag {
                Term::ImproperList(list) => match (&list.elements[..], &*list.last) {
                    ([name], Term::Reference(alias)) if atom_name(name) == Some("alias") => Some(alias),
                    ([first, ..], _) => of(first),
                    _ => None,
                },
                _ => None,
            }
        }
        of(&self.tag)
    }
}

impl Node {
    /// Calls a registered process of a connected node.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(&self, peer: &str, process: &str, body: Term, timeout: Duration) -> Result<Term, CallError> {
        let target = Process::Name(process.to_owned());
        let (own, number, answer) = self.wait(peer, target.clone()).ok_or(CallError::NotConnected)?;
        // However this ends, also by being dropped.
        let _waiting = Waiting { node: self, pid: &own, number };
        let tag = Term::from(self.new_reference(number));
        let request = tuple([atom("$gen_call"), tuple([own.clone().into(), tag.clone()]), body]);
        self.send(peer, &own, &target, request)?;
        match tokio::time::timeout(timeout, answer).await {
            Err(_) => Err(CallError::Timeout),
            Ok(Err(_)) => Err(CallError::Down { reason: "the node has stopped".to_owned() }),
            Ok(Ok(Answer::Down(reason))) => Err(CallError::Down { reason }),
            Ok(Ok(Answer::Reply(payload))) => match payload.decode() {
                Ok(Term::Tuple(mut reply)) if reply.elements.len() == 2 && reply.elements[0] == tag => {
                    reply.elements.pop().ok_or(CallError::Shape)
                }
                _ => Err(CallError::Shape),
            },
        }
    }

    /// Answers a call.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn reply(&self, peer: &str, own: &Pid, request: Request, answer: Term) -> Result<(), SendError> {
        let alias = request.alias().cloned();
        let message = tuple([request.tag, answer]);
        self.push(
            peer,
            match alias {
                Some(alias) => {
                    Message::AliasSend(erl_dist::message::AliasSend { from_pid: own.clone(), alias, message })
                }
                None => Message::send(request.from, message),
            },
        )
    }
}

struct Waiting<'a> {
    node: &'a Node,
    pid: &'a Pid,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.node.stop_waiting(self.pid, self.number);
    }
}

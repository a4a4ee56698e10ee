//! Batches made ahead of the loop, so that a step does not wait for reading and decoding.
//!
//! The order of the batches is that of the sampler alone; what was made ahead and not taken is not part of any state.

use std::sync::mpsc::{Receiver, sync_channel};

use arcuate_data::{Batch, MicrobatchLimits, Sampler, SamplerState, collate};

/// Batches that wait at most; one more may be in the making.
const AHEAD: usize = 2;

type Made = arcuate_data::Result<(Batch, Sampler)>;

/// A sampler whose batches are made on a thread of their own.
pub(crate) struct Feed {
    /// As it stands after the last batch that was taken.
    sampler: Sampler,
    limits: MicrobatchLimits,
    pad_id: u32,
    made: Option<Receiver<Made>>,
}

impl Feed {
    pub(crate) fn new(sampler: Sampler, limits: MicrobatchLimits, pad_id: u32) -> Self {
        Self { sampler, limits, pad_id, made: None }
    }

    /// The next batch.
    pub(crate) fn next(&mut self) -> arcuate_data::Result<Batch> {
        let made = self.made.get_or_insert_with(|| start(self.sampler.clone(), self.limits, self.pad_id));
        let received = match made.recv() {
            Ok(made) => made,
            // The thread ends after an error; what follows is made here.
            Err(_) => make(&mut self.sampler.clone(), self.limits, self.pad_id),
        };
        let (batch, sampler) = received?;
        self.sampler = sampler;
        Ok(batch)
    }

    /// The sampler as it stands after the last batch that was taken.
    pub(crate) fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// Goes to where another sampler stood; what was made ahead is forgotten.
    pub(crate) fn restore(&mut self, state: &SamplerState) -> arcuate_data::Result<()> {
        self.made = None;
        self.sampler.restore(state)
    }

    pub(crate) fn into_sampler(self) -> Sampler {
        self.sampler
    }
}

fn make(sampler: &mut Sampler, limits: MicrobatchLimits, pad_id: u32) -> Made {
    let rows = sampler.next_microbatch(limits)?;
    Ok((collate(&rows, pad_id, None), sampler.clone()))
}

/// Starts the thread; it ends with the receiver, or after an error.
fn start(mut sampler: Sampler, limits: MicrobatchLimits, pad_id: u32) -> Receiver<Made> {
    let (send, receive) = sync_channel(AHEAD);
    std::thread::spawn(move || {
        loop {
            let made = make(&mut sampler, limits, pad_id);
            let is_last = made.is_err();
            if send.send(made).is_err() || is_last {
                return;
            }
        }
    });
    receive
}

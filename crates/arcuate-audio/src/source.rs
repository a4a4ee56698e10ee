//! Where bytes come from: a file, memory, or a pipe that cannot go back.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use symphonia::core::io::MediaSource;

/// The largest page of Ogg, header included: what the end of a stream must show.
pub(crate) const TAIL_BYTES: usize = 65_307;

/// The last bytes that went through a [`Pipe`].
#[derive(Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        let num_old = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..num_old);
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

/// A reader that only goes forward, and remembers the end of what it gave.
pub(crate) struct Pipe<R> {
    /// The lock makes it shareable, as the decoders ask; nothing ever waits for it.
    reader: Mutex<R>,
    tail: Tail,
}

impl<R: Read + Send> Pipe<R> {
    pub(crate) fn new(reader: R, tail: Tail) -> Self {
        Self { reader: Mutex::new(reader), tail }
    }
}

impl<R: Read + Send> Read for Pipe<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let reader = self.reader.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Filled as far as the pipe can, since a decoder takes few bytes for the end.
        let mut num_read = 0;
        while num_read < buffer.len() {
            match reader.read(&mut buffer[num_read..]) {
                Ok(0) => break,
                Ok(more) => num_read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.tail.push(&buffer[..num_read]);
        Ok(num_read)
    }
}

impl<R: Read + Send> Seek for Pipe<R> {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a pipe cannot go back"))
    }
}

impl<R: Read + Send> MediaSource for Pipe<R> {
    fn is_seekable(&self) -> bool {
        false
    }

    fn byte_len(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_remembers_its_end_in_bounded_memory() {
        let tail = Tail::default();
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        let mut pipe = Pipe::new(io::Cursor::new(bytes.clone()), tail.clone());
        let mut buffer = [0; 10_000];
        while pipe.read(&mut buffer).expect("memory can be read") > 0 {}
        assert_eq!(tail.bytes(), bytes[bytes.len() - TAIL_BYTES..]);
    }
}

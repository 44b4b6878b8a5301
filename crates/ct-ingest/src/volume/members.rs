//! A gzip file as one stream: member after member, as `gzip` reads it, and zeros behind a member, with which tapes and some
//! copying programs fill their blocks.

use flate2::bufread::GzDecoder;
use std::io::{self, BufRead, Read};

/// The inflated content of all members.
pub(super) struct GzipMembers<R> {
    /// The one that is being read; `None` behind the last.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> GzipMembers<R> {
    pub fn new(packed: R) -> Self {
        Self { member: Some(GzDecoder::new(packed)) }
    }
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let count = member.read(out)?;
            if count > 0 {
                return Ok(count);
            }
            let packed = self.member.take().map(GzDecoder::into_inner);
            if let Some(mut packed) = packed {
                self.member = skip_zeros(&mut packed)?.then(|| GzDecoder::new(packed));
            }
        }
        Ok(0)
    }
}

/// Whether anything but zeros follows.
fn skip_zeros(packed: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = packed.fill_buf()?;
        if bytes.is_empty() {
            return Ok(false);
        }
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        let more = zeros < bytes.len();
        packed.consume(zeros);
        if more {
            return Ok(true);
        }
    }
}

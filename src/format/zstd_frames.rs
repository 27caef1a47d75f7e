//! Compression of one buffer, and decompression into a bounded one. Pure.

use std::io::Cursor;

use zstd::zstd_safe;
use zstd_safe::zstd_sys::ZSTD_ErrorCode;

use crate::error::{Error, Result};

/// Level of everything that is written (spec 02 §1): on the hosts this is made for, disk and network are slower than
/// level 1, and the processor is not to spare.
const LEVEL: i32 = 1;

/// The text of the original for input that ends inside a frame.
const INCOMPLETE: &str = "incomplete frame";

/// `head`, then `plain` as one frame; `None` unless that frame is shorter than `plain`.
///
/// The output has no room for a longer frame, so data that does not shrink is found out without a larger buffer.
pub(super) fn compress_after(head: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let frame_bytes_max = plain.len().checked_sub(1)?;
    let mut out = Vec::with_capacity(head.len() + frame_bytes_max);
    out.extend_from_slice(head);
    let mut out = Cursor::new(out);
    out.set_position(u64::try_from(head.len()).ok()?);
    let frame_bytes = zstd_safe::compress(&mut out, plain, LEVEL).ok()?;
    // An allocator may have given more capacity than was asked for.
    (frame_bytes <= frame_bytes_max).then(|| out.into_inner())
}

/// Plaintext of all frames of `frames`, which must end with the last one.
///
/// No more than `plain_bytes_max` bytes are ever written or allocated, whatever the frames declare. The decoder works
/// straight in the output, so a frame that asks for a huge window gets none.
pub(super) fn decompress(frames: &[u8], plain_bytes_max: usize) -> Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(room_for(frames, plain_bytes_max)?);
    let decompressed = zstd_safe::decompress(&mut plain, frames);
    decompressed.map(|_| plain).map_err(|code| fault(frames, plain_bytes_max, code))
}

/// The same again and again in the same memory, which grows to the longest plaintext that was asked for.
#[derive(Default)]
pub(super) struct Decoder {
    context: zstd_safe::DCtx<'static>,
    plain: Vec<u8>,
}

impl Decoder {
    /// As [`decompress`]; the plaintext lies in the decoder until the next call.
    pub(super) fn decompress(&mut self, frames: &[u8], plain_bytes_max: usize) -> Result<&[u8]> {
        let room = room_for(frames, plain_bytes_max)?;
        if self.plain.len() < room {
            self.plain.resize(room, 0);
        }
        let decompressed = self.context.decompress(&mut self.plain[..room], frames);
        decompressed.map(|bytes| &self.plain[..bytes]).map_err(|code| fault(frames, plain_bytes_max, code))
    }
}

/// How much memory the plaintext needs: what the frames declare, else as much as it may have.
fn room_for(frames: &[u8], plain_bytes_max: usize) -> Result<usize> {
    match declared_bytes(frames) {
        _ if frames.is_empty() => Err(Error::corrupt(INCOMPLETE)),
        Some(declared) if declared > plain_bytes_max => Err(too_long(plain_bytes_max)),
        Some(declared) => Ok(declared),
        None => Ok(plain_bytes_max),
    }
}

fn too_long(plain_bytes_max: usize) -> Error {
    Error::corrupt(format!("compressed data is longer than {plain_bytes_max} bytes"))
}

/// What a decoder's error number means.
fn fault(frames: &[u8], plain_bytes_max: usize, code: zstd_safe::ErrorCode) -> Error {
    if zstd_safe::is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall) {
        return too_long(plain_bytes_max);
    }
    Error::corrupt(fault_between_frames(frames).unwrap_or(zstd_safe::get_error_name(code)))
}

/// Plaintext length that the headers of all frames declare together; `None` if one of them does not say.
pub(super) fn declared_bytes(frames: &[u8]) -> Option<usize> {
    // Frames whose headers cannot be read are left to the decoder, which says what is wrong.
    let mut rest = frames;
    let mut total: usize = 0;
    while !rest.is_empty() {
        let declared = zstd_safe::get_frame_content_size(rest).ok()??;
        total = total.checked_add(usize::try_from(declared).ok()?)?;
        rest = after_frame(rest).ok()?;
    }
    Some(total)
}

/// What comes after the first frame of `frames`; shorter than `frames`.
fn after_frame(frames: &[u8]) -> Result<&[u8], zstd_safe::ErrorCode> {
    let bytes = zstd_safe::find_frame_compressed_size(frames)?;
    Ok(frames.get(bytes.max(1)..).unwrap_or_default())
}

/// What is wrong with the division into frames, if anything: the decoder has one error for a frame that is cut off and
/// for bytes that are none, and takes a cut checksum for a wrong one.
fn fault_between_frames(frames: &[u8]) -> Option<&'static str> {
    let mut rest = frames;
    while !rest.is_empty() {
        match after_frame(rest) {
            Ok(tail) => rest = tail,
            Err(code) if zstd_safe::is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_srcSize_wrong) => {
                return Some(INCOMPLETE);
            }
            Err(code) => return Some(zstd_safe::get_error_name(code)),
        }
    }
    None
}

//! A QR code in pixels.

use super::{LabelError, Matrix, QUIET_ZONE};

const PIXELS_A_MODULE: usize = 8;

/// Greyscale PNG, one bit a pixel.
pub(super) fn png(matrix: &Matrix) -> Result<Vec<u8>, LabelError> {
    let width = (matrix.width + 2 * QUIET_ZONE) * PIXELS_A_MODULE;
    // Eight pixels of one module fill one octet.
    let row = |y: usize| -> Vec<u8> {
        (0..matrix.width + 2 * QUIET_ZONE)
            .map(|x| match (x.checked_sub(QUIET_ZONE), y.checked_sub(QUIET_ZONE)) {
                (Some(x), Some(y)) if matrix.is_dark(x, y) => 0x00,
                _ => 0xff,
            })
            .collect()
    };
    let mut pixels = Vec::new();
    for y in 0..matrix.width + 2 * QUIET_ZONE {
        let row = row(y);
        for _ in 0..PIXELS_A_MODULE {
            pixels.extend_from_slice(&row);
        }
    }
    let side = u32::try_from(width).map_err(|_too_long| LabelError::TooLong)?;
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header().map_err(LabelError::Png)?;
    writer.write_image_data(&pixels).map_err(LabelError::Png)?;
    writer.finish().map_err(LabelError::Png)?;
    Ok(out)
}

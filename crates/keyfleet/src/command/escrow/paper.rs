//! A share as a person reads it: words, and a QR code of the same for a camera that is offline.

use kf_escrow::Share;
use kf_key::SecretBytes;
use qrcode::QrCode;
use qrcode::render::unicode;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// What is printed: comments, the words, and the QR code of the octets in hexadecimal digits.
pub(super) fn print(share: &Share, ceremony: &str, person: &str) -> Result<SecretBytes, Failure> {
    let words = share.words();
    let octets = share.encode();
    // Exposed to the paper, which is what the custodian keeps.
    let digits = Zeroizing::new(hex::encode_upper(octets.expose()));
    let code = QrCode::new(digits.as_bytes())
        .map_err(|error| Failure::local(format!("the share gave no QR code: {error}"), "please report this"))?;
    let drawn = Zeroizing::new(code.render::<unicode::Dense1x2>().build());
    let head = format!(
        "# Keyfleet escrow `{ceremony}`, share {} of ceremony {}, for {person}.\n# {} shares bring the key back. \
         Keep it where nobody but {person} gets it.\n",
        share.index(),
        share.ceremony(),
        share.threshold()
    );
    let parts = [head.as_bytes(), words.expose(), b"\n\n", drawn.as_bytes(), b"\n"];
    let length = parts.iter().map(|part| part.len()).sum();
    Ok(SecretBytes::fill(length, |place| {
        place.iter_mut().zip(parts.iter().flat_map(|part| part.iter())).for_each(|(place, octet)| *place = *octet);
    }))
}

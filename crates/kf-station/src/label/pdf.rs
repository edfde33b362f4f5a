//! Sheets of labels as PDF: A4, three columns of eight, 64 × 34 mm each. QR codes are vectors.

use pdf_writer::{Content, Finish as _, Name, Pdf, Rect, Ref, Str};

use super::{Label, LabelError, Matrix, QUIET_ZONE};

/// The most labels in one file.
pub const MAX_LABELS: usize = 10_000;
const COLUMNS: usize = 3;
const ROWS: usize = 8;
/// Points (1/72 inch).
const PAGE: (f32, f32) = (595.0, 842.0);
const CELL: (f32, f32) = (181.0, 96.0);
const MARGIN: (f32, f32) = (26.0, 37.0);
const QR_SIDE: f32 = 92.0;

/// Sheets with these labels.
///
/// # Errors
/// [`LabelError`].
pub fn sheet_pdf(labels: &[Label]) -> Result<Vec<u8>, LabelError> {
    if labels.len() > MAX_LABELS {
        return Err(LabelError::TooMany);
    }
    let mut pdf = Pdf::new();
    let (catalog, tree, font) = (Ref::new(1), Ref::new(2), Ref::new(3));
    let mut next = 4;
    let mut pages = Vec::new();
    pdf.catalog(catalog).pages(tree);
    for sheet in labels.chunks(COLUMNS * ROWS) {
        let (page_ref, content_ref) = (Ref::new(next), Ref::new(next + 1));
        next += 2;
        pages.push(page_ref);
        let mut content = Content::new();
        for (place, label) in sheet.iter().enumerate() {
            draw(&mut content, &label.matrix()?, label, place);
        }
        let mut page = pdf.page(page_ref);
        page.media_box(Rect::new(0.0, 0.0, PAGE.0, PAGE.1));
        page.parent(tree);
        page.contents(content_ref);
        page.resources().fonts().pair(Name(b"F1"), font);
        page.finish();
        pdf.stream(content_ref, &content.finish());
    }
    let count = i32::try_from(pages.len()).unwrap_or(i32::MAX);
    pdf.pages(tree).kids(pages).count(count);
    pdf.type1_font(font).base_font(Name(b"Courier-Bold"));
    Ok(pdf.finish())
}

/// Whole numbers below 2^24, which `f32` holds exactly.
#[allow(clippy::as_conversions, clippy::cast_precision_loss, reason = "bounded by the size of a QR code and a sheet")]
const fn points(number: usize) -> f32 {
    number as f32
}

fn draw(content: &mut Content, matrix: &Matrix, label: &Label, place: usize) {
    let (column, row) = (place % COLUMNS, place / COLUMNS);
    let left = MARGIN.0 + points(column) * CELL.0;
    let top = PAGE.1 - MARGIN.1 - points(row) * CELL.1;
    let module = QR_SIDE / points(matrix.width + 2 * QUIET_ZONE);
    for (x, y, length) in matrix.runs() {
        content.rect(
            left + points(x + QUIET_ZONE) * module,
            top - points(y + QUIET_ZONE + 1) * module,
            points(length) * module,
            module,
        );
    }
    content.fill_nonzero();
    for (number, line) in label.lines().iter().enumerate() {
        content.begin_text();
        content.set_font(Name(b"F1"), 8.5);
        content.next_line(left + QR_SIDE + 2.0, top - 18.0 - points(number) * 14.0);
        content.show(Str(line.as_bytes()));
        content.end_text();
    }
}

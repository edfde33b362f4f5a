/* A device on the C library, driven by commands from the serial port: what a product's firmware does.
 *
 * The line to the host stands for what surrounds the microcontroller: the flash chip, the noise source, the one-time
 * programmable memory with the chip's key and the pins, and a modem that does TLS and HTTP. Keys never cross it: the modem
 * asks for a signature when a TLS session needs one. A product replaces the hooks and ask(). */
#include <string.h>

#include "board.h"
#include "keyfleet.h"

/* ---- One-time programmable memory -------------------------------------------------------------------------------- */

static struct {
  uint8_t device[16], chip_key[32], anchor[32], noise_state;
  uint8_t delivery[KF_PUBLIC_KEY_OCTETS], orders[KF_PUBLIC_KEY_OCTETS];
  int has_delivery, has_orders;
  char name[49], label[49];
} fuses;

static int take_text(fields *frame, char text[49]) {
  size_t length;
  const uint8_t *field = field_next(frame, &length);
  if (field == NULL || length > 48) return 0;
  memcpy(text, field, length);
  text[length] = '\0';
  return 1;
}

static int take_octets(fields *frame, uint8_t *octets, size_t length) {
  const uint8_t *field = field_of(frame, length);
  if (field == NULL) return 0;
  memcpy(octets, field, length);
  return 1;
}

/* A pinned key; an empty field is none. */
static int take_pin(fields *frame, uint8_t pin[KF_PUBLIC_KEY_OCTETS], int *is_there) {
  size_t length;
  const uint8_t *field = field_next(frame, &length);
  *is_there = field != NULL && length == KF_PUBLIC_KEY_OCTETS;
  if (*is_there) memcpy(pin, field, length);
  return *is_there || (field != NULL && length == 0);
}

static int read_fuses(fields frame) {
  return take_octets(&frame, fuses.device, 16) && take_text(&frame, fuses.name) && take_text(&frame, fuses.label) &&
         take_octets(&frame, fuses.chip_key, 32) && take_octets(&frame, fuses.anchor, 32) &&
         take_octets(&frame, &fuses.noise_state, 1) && take_pin(&frame, fuses.delivery, &fuses.has_delivery) &&
         take_pin(&frame, fuses.orders, &fuses.has_orders);
}

/* ---- Hooks ------------------------------------------------------------------------------------------------------- */

#define SECTOR 1024u
#define SECTORS 16u
#define PAGE 128u
#define PAGES (SECTOR * SECTORS / PAGE)

/* What was read of the flash chip, until it is programmed or erased: reading over the line is slow. */
static uint8_t pages[PAGES][PAGE], known[PAGES];
static uint8_t samples[256];
static size_t next_sample = sizeof samples;

static int32_t noise(void *context, uint8_t *sample) {
  (void)context;
  if (next_sample == sizeof samples) {
    line_begin(1);
    line_write("N", 1);
    if (line_receive(samples, sizeof samples) != sizeof samples) return -1;
    next_sample = 0;
  }
  *sample = samples[next_sample];
  samples[next_sample++] = 0; /* a sample is used once */
  return 0;
}

static int32_t flash_read(void *context, uint32_t offset, uint8_t *octets, size_t length) {
  (void)context;
  if (offset > sizeof pages || length > sizeof pages - offset) return -1;
  for (; length > 0; length--, offset++, octets++) {
    uint32_t number = offset / PAGE;
    if (!known[number]) {
      uint8_t ask[9] = {'R'};
      number_to(ask + 1, number * PAGE);
      number_to(ask + 5, PAGE);
      line_begin(sizeof ask);
      line_write(ask, sizeof ask);
      if (line_receive(pages[number], PAGE) != PAGE) return -1;
      known[number] = 1;
    }
    *octets = pages[number][offset % PAGE];
  }
  return 0;
}

static int32_t flash_answer(void) {
  uint8_t status = 1;
  return line_receive(&status, 1) == 1 && status == 0 ? 0 : -1;
}

static int32_t flash_program(void *context, uint32_t offset, const uint8_t *octets, size_t length) {
  uint8_t ask[5] = {'P'};
  (void)context;
  if (length == 0 || offset > sizeof pages || length > sizeof pages - offset) return -1;
  memset(known + offset / PAGE, 0, (offset + length - 1) / PAGE - offset / PAGE + 1);
  number_to(ask + 1, offset);
  line_begin(sizeof ask + length);
  line_write(ask, sizeof ask);
  line_write(octets, length);
  return flash_answer();
}

static int32_t flash_erase(void *context, uint32_t sector) {
  uint8_t ask[5] = {'E'};
  (void)context;
  if (sector >= SECTORS) return -1;
  memset(known + sector * (SECTOR / PAGE), 0, SECTOR / PAGE);
  number_to(ask + 1, sector);
  line_begin(sizeof ask);
  line_write(ask, sizeof ask);
  return flash_answer();
}

/* This chip has no HMAC engine: its key lies in one-time programmable memory, and the SDK computes. */
static int32_t chip_hmac(void *context, const uint8_t *message, size_t length, uint8_t *tag) {
  (void)context;
  return kf_hmac_sha256(fuses.chip_key, message, length, tag);
}

static const kf_hooks hooks = {NULL, noise, flash_read, flash_program, flash_erase, chip_hmac, NULL, NULL};

/* ---- The modem --------------------------------------------------------------------------------------------------- */

static uint8_t answer[8 * 1024], certificate[KF_CERTIFICATE_OCTETS];
static kf_device device;

static void write_field(const void *octets, size_t length) {
  line_begin(length); /* the same form as the head of a frame */
  line_write(octets, length);
}

static size_t length_of(const char *text) { return text == NULL ? 0 : strlen(text); }

/* What the modem brought: it lies in `answer` until the next request. No server has answered: status 0. */
typedef struct reply {
  uint32_t retry_after;
  const uint8_t *headers; /* those that are meant for devices, one a line */
  size_t headers_length;
  uint8_t *body;
  size_t body_length;
  uint16_t status;
} reply;

static reply reply_in(size_t length) {
  reply found = {KF_NO_RETRY_AFTER, answer, 0, answer, 0, 0};
  size_t headers = length < 9 ? SIZE_MAX : (size_t)answer[7] | (size_t)answer[8] << 8;
  if (length < 9 || length - 9 < headers) return found;
  found.status = (uint16_t)(answer[1] << 8 | answer[2]);
  found.retry_after = number_at(answer + 3);
  found.headers = answer + 9;
  found.headers_length = headers;
  found.body = answer + 9 + headers;
  found.body_length = length - 9 - headers;
  return found;
}

/* Sends a request, with further headers one a line, and signs for the TLS session when the modem asks for it. The modem has no trust
 * of its own: whom to believe is said with each request. */
static reply ask(const kf_request *request, const char *headers) {
  const uint8_t method = request->method == KF_POST ? 1 : 0;
  uint8_t roots[KF_ROOTS_OCTETS], count = 0;
  size_t certificate_length = 0, length;
  if (kf_roots(&device, fuses.anchor, roots, &count) != KF_OK) return reply_in(0);
  if (request->identity != KF_NO_IDENTITY &&
      kf_identity_certificate(&device, request->identity, certificate, sizeof certificate, &certificate_length) != KF_OK) {
    return reply_in(0);
  }
  length = length_of(request->path) + length_of(request->content_type) + length_of(request->authorization) + length_of(headers);
  line_begin(2 + 7 * 2 + length + request->body_length + certificate_length + 32u * count);
  line_write("H", 1);
  line_write(&method, 1);
  write_field(request->path, length_of(request->path));
  write_field(request->content_type, length_of(request->content_type));
  write_field(request->authorization, length_of(request->authorization));
  write_field(request->body, request->body_length);
  write_field(certificate, certificate_length);
  write_field(headers, length_of(headers));
  write_field(roots, 32u * count);
  for (;;) {
    length = line_receive(answer, sizeof answer);
    if (length == LINE_TOO_LONG || length == 0) return reply_in(0);
    if (answer[0] == 'A') return reply_in(length);
    if (answer[0] != 'S') return reply_in(0);
    uint8_t signature[64];
    int is_signed = kf_identity_sign(&device, request->identity, answer + 1, length - 1, signature) == KF_OK;
    line_begin(is_signed ? 65 : 1);
    line_write("s", 1);
    if (is_signed) line_write(signature, sizeof signature);
  }
}

/* The value of a header of the answer; NULL when it is not there. */
static const uint8_t *header_of(const reply *from, const char *name, size_t *length) {
  const uint8_t *line = from->headers, *end = line + from->headers_length;
  size_t name_length = strlen(name);
  while (line < end) {
    const uint8_t *next = memchr(line, '\n', (size_t)(end - line));
    size_t line_length = (size_t)((next == NULL ? end : next) - line);
    if (line_length > name_length && memcmp(line, name, name_length) == 0 && line[name_length] == ':') {
      *length = line_length - name_length - 1;
      return line + name_length + 1;
    }
    line += line_length + 1;
  }
  return NULL;
}

static int digit_of(uint8_t letter) {
  if (letter >= '0' && letter <= '9') return letter - '0';
  return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

/* A header of so many octets in hexadecimal. */
static int octets_of_header(const reply *from, const char *name, uint8_t *octets, size_t length) {
  size_t found = 0, i;
  const uint8_t *text = header_of(from, name, &found);
  if (text == NULL || found != 2 * length) return 0;
  for (i = 0; i < length; i++) {
    int high = digit_of(text[2 * i]), low = digit_of(text[2 * i + 1]);
    if (high < 0 || low < 0) return 0;
    octets[i] = (uint8_t)(high << 4 | low);
  }
  return 1;
}

/* ---- Commands ---------------------------------------------------------------------------------------------------- */

static uint8_t command[LINE_FRAME_OCTETS], result[LINE_FRAME_OCTETS];
static size_t result_length;
static const char *failed; /* which call did not succeed, or NULL */
static kf_status why;

/* Notes the first call that does not succeed. */
static int did(const char *what, kf_status status) {
  if (status == KF_OK) return 1;
  if (failed == NULL) {
    failed = what;
    why = status;
  }
  return 0;
}
#define DO(call) \
  do { if (!did(#call, call)) return; } while (0)
#define REQUIRE(condition, status) \
  do { if (!(condition)) { did(#condition, status); return; } } while (0)

static uint8_t wanted_key[32], authorities[6 * 1024];

/* Goes on until nothing is due. */
static void keep_certificate(uint64_t now, const uint8_t *code, size_t code_length, uint8_t renew_now) {
  static kf_enrolment enrolment;
  kf_est est = {fuses.label, fuses.name, code, code_length, authorities, sizeof authorities, {0}, KF_PRODUCTION, 0, renew_now};
  int steps;
  memcpy(est.anchor, fuses.anchor, sizeof est.anchor);
  DO(kf_enrolment_begin(&enrolment, &device, &est));
  for (steps = 0; steps < 24; steps++) {
    kf_request request;
    reply got;
    DO(kf_enrolment_next(&enrolment, &device, now, &request));
    if (request.what == KF_CHANGED) continue;
    if (request.what != KF_SEND) break;
    got = ask(&request, NULL);
    DO(kf_enrolment_answer(&enrolment, &device, now, got.status, got.retry_after, got.body, got.body_length));
  }
  kf_enrolment_end(&enrolment);
  /* The server did not grant it, or could not be reached: KF_MISSING. */
  DO(kf_identity_certificate(&device, KF_IN_USE, result, sizeof result, &result_length));
}

/* Enrolment code, empty for none; whether to renew at once. Gives the certificate. */
static void enrol(uint64_t now, fields *frame) {
  size_t length;
  const uint8_t *code = field_next(frame, &length), *renew_now = field_of(frame, 1);
  REQUIRE(code != NULL && renew_now != NULL, KF_LENGTH);
  keep_certificate(now, code, length, *renew_now);
}

/* Facility 16, facility epoch, device epoch, key 32: the first device key, from the factory. */
static void inject(fields *frame) {
  kf_key_place place;
  const uint8_t *facility = field_of(frame, 16), *facility_epoch = field_of(frame, 4), *device_epoch = field_of(frame, 4);
  REQUIRE(facility != NULL && facility_epoch != NULL && device_epoch != NULL, KF_LENGTH);
  REQUIRE(take_octets(frame, wanted_key, 32), KF_LENGTH);
  memcpy(place.facility, facility, 16);
  place.facility_epoch = number_at(facility_epoch);
  place.device_epoch = number_at(device_epoch);
  did("kf_device_key_inject", kf_device_key_inject(&device, &place, wanted_key));
  memset(wanted_key, 0, sizeof wanted_key);
}

/* The field of a service as a text. */
static int take_service(fields *frame, char service[49]) { return take_text(frame, service); }

/* One sealer for as long as the service and the device key are the same. */
static kf_sealer sealer;
static kf_key_place sealed_at;
static char sealed_for[49];

/* Ends what this boot seals with. */
static void forget(void) {
  kf_sealer_wipe(&sealer);
  sealed_for[0] = 0;
}

/* Service, plaintext: gives the envelope. */
static void seal(fields *frame) {
  char service[49];
  kf_key_place place;
  size_t length;
  const uint8_t *plaintext;
  REQUIRE(take_service(frame, service) && (plaintext = field_next(frame, &length)) != NULL, KF_LENGTH);
  DO(kf_device_key_place(&device, &place));
  if (strcmp(service, sealed_for) != 0 || memcmp(&place, &sealed_at, sizeof place) != 0) {
    DO(kf_sealer_begin(&sealer, &device, service, KF_AES_128_CCM));
    strcpy(sealed_for, service);
    sealed_at = place;
  }
  DO(kf_seal(&sealer, plaintext, length, NULL, 0, result, sizeof result, &result_length));
}

/* Service, envelope of the server: gives the plaintext, once. */
static void open(fields *frame) {
  char service[49];
  size_t length;
  const uint8_t *envelope;
  REQUIRE(take_service(frame, service) && (envelope = field_next(frame, &length)) != NULL, KF_LENGTH);
  DO(kf_open(&device, service, envelope, length, NULL, 0, result, sizeof result, &result_length));
}

/* Facility 16, facility epoch, device epoch. */
static void write_place(uint8_t octets[24], const kf_key_place *place) {
  memcpy(octets, place->facility, 16);
  number_to(octets + 16, place->facility_epoch);
  number_to(octets + 20, place->device_epoch);
}

/* POSTs a message of the SDK's own. It authenticates itself: no certificate is shown. */
static reply post(const char *path, const uint8_t *message, size_t length) {
  kf_request request = {0, path, "application/cbor", NULL, message, length, KF_SEND, KF_POST, KF_NO_IDENTITY, 0};
  return ask(&request, NULL);
}

/* Gets the newest device key and puts it into use. Gives its place. */
static void exchange_key(void) {
  static kf_exchange exchange;
  uint8_t message[KF_MESSAGE_OCTETS];
  size_t length;
  kf_key_place place;
  REQUIRE(fuses.has_delivery, KF_MISSING);
  DO(kf_exchange_begin(&exchange, &device, KF_DELIVERY, fuses.delivery, message, &length));
  while (length > 0) {
    reply got = post("/v1/device/exchange", message, length);
    REQUIRE(got.status == 200, KF_REFUSED);
    DO(kf_exchange_step(&exchange, &device, got.body, got.body_length, message, &length));
  }
  kf_exchange_end(&exchange);
  DO(kf_device_key_place(&device, &place));
  write_place(result, &place);
  result_length = 24;
}

/* Carries an order out and gives the signed report. */
static void carry_out(uint64_t now, const uint8_t *message, size_t length) {
  static kf_order order;
  uint8_t act, erasure;
  REQUIRE(message != NULL && fuses.has_orders, KF_MISSING);
  DO(kf_order_accept(&order, &device, fuses.orders, message, length, now, &act));
  if (act == KF_WIPE) {
    forget();
    DO(kf_order_wipe(&order, &device, now, result, &result_length, &erasure));
  } else if (act == KF_FACTORY_RESET) {
    forget();
    DO(kf_order_factory_reset(&order, &device, now, result, &result_length, &erasure));
  } else {
    keep_certificate(now, NULL, 0, 1);
    if (failed == NULL) exchange_key();
    if (failed == NULL) DO(kf_order_report(&order, &device, KF_DONE, now, result, &result_length));
  }
  kf_order_end(&order);
}

/* Order: carries it out and gives the signed report. */
static void obey(uint64_t now, fields *frame) {
  size_t length;
  const uint8_t *message = field_next(frame, &length);
  carry_out(now, message, length);
}

/* What the product keeps, under a storage key that the fleet has replaced now and then. */
static kf_protected kept;
#define FIRST_KEPT 0x8000u

/* Number, octets: keeps them. */
static void keep(fields *frame) {
  size_t length;
  const uint8_t *number = field_of(frame, 1), *octets = field_next(frame, &length);
  REQUIRE(number != NULL && octets != NULL, KF_LENGTH);
  DO(kf_protected_open(&kept, &device));
  did("kf_protected_put", kf_protected_put(&kept, &device, (uint16_t)(FIRST_KEPT + *number), octets, length));
  kf_protected_end(&kept);
}

/* Number: gives the version of the storage key in use, 4 octets, and what is kept. */
static void recall(fields *frame) {
  uint32_t version = 0;
  const uint8_t *number = field_of(frame, 1);
  REQUIRE(number != NULL, KF_LENGTH);
  DO(kf_protected_open(&kept, &device));
  if (did("kf_protected_version", kf_protected_version(&kept, &version)) &&
      did("kf_protected_get", kf_protected_get(&kept, &device, (uint16_t)(FIRST_KEPT + *number), result + 4, sizeof result - 4,
                                               &result_length))) {
    number_to(result, version);
    result_length += 4;
  }
  kf_protected_end(&kept);
}

static void move_kept(const uint8_t request[16]) {
  uint8_t what;
  DO(kf_protected_begin(&kept, &device, request));
  do {
    DO(kf_protected_step(&kept, &device, &what));
  } while (what == KF_MOVED);
}

/* Puts everything under a new storage key, destroys the old one, and tells the server so. Goes on with what a power cut left, and says
 * again what the server has not heard. */
static void migrate(uint64_t now, const uint8_t request[16]) {
  uint8_t report[KF_MESSAGE_OCTETS];
  size_t length;
  DO(kf_protected_open(&kept, &device));
  move_kept(request);
  kf_protected_end(&kept);
  if (failed != NULL) return;
  DO(kf_protected_report(&device, now, report, &length));
  REQUIRE(post("/v1/device/storage", report, length).status / 100 == 2, KF_REFUSED);
}

static int is_held(const uint8_t root[32]) {
  uint8_t roots[KF_ROOTS_OCTETS], count = 0;
  did("kf_roots", kf_roots(&device, fuses.anchor, roots, &count));
  while (count-- > 0) {
    if (memcmp(roots + 32u * count, root, 32) == 0) return 1;
  }
  return 0;
}

/* Takes up what the server announces; whether there is something new to prove. */
static int take_up_root(uint64_t now, const uint8_t announced[32]) {
  char path[sizeof "/.well-known/est//cacerts" + 48] = "/.well-known/est/";
  kf_request question = {0, path, NULL, NULL, NULL, 0, KF_SEND, KF_GET, KF_NO_IDENTITY, 0};
  uint8_t taken;
  reply got;
  if (is_held(announced)) return 0;
  strcat(strcat(path, fuses.label), "/cacerts");
  got = ask(&question, NULL);
  if (!did("cacerts", got.status == 200 ? KF_OK : KF_REFUSED)) return 0;
  did("kf_roots_take_up", kf_roots_take_up(&device, fuses.anchor, now, got.body, got.body_length, &taken));
  return is_held(announced);
}

/* What waits: an order, none when its length is 0, and what is asked for beside it. */
typedef struct news {
  uint8_t order[KF_MESSAGE_OCTETS], anchor[32], storage[16];
  size_t order_length;
  int has_anchor, has_storage, renews;
} news;

/* With what this program can be asked for without an order, and the act that not every program knows. */
#define KNOWS KF_STORAGE_HEADER ":1\n" KF_RENEWAL_HEADER ":1\n" KF_ACTS_HEADER ":" KF_ACTS "\n"

static void ask_for_news(news *found) {
  static const kf_request question = {0, "/v1/device/orders", NULL, NULL, NULL, 0, KF_SEND, KF_GET, KF_IN_USE, 0};
  reply got = ask(&question, KNOWS);
  size_t ignored;
  memset(found, 0, sizeof *found);
  REQUIRE(got.status == 204 || (got.status == 200 && got.body_length <= sizeof found->order), KF_REFUSED);
  if (got.status == 200) {
    found->order_length = got.body_length;
    memcpy(found->order, got.body, got.body_length);
  }
  found->has_anchor = octets_of_header(&got, KF_ANCHOR_HEADER, found->anchor, sizeof found->anchor);
  found->has_storage = octets_of_header(&got, KF_STORAGE_HEADER, found->storage, sizeof found->storage);
  found->renews = header_of(&got, KF_RENEWAL_HEADER, &ignored) != NULL;
}

/* What is asked for without an order. Whatever the next poll proves is proved at once. */
static void do_beside(uint64_t now, const news *asked) {
  static news after;
  int proves = asked->has_anchor && take_up_root(now, asked->anchor);
  if (failed == NULL && asked->has_storage) migrate(now, asked->storage);
  /* An order to rotate does the same, and is answered. */
  if (failed == NULL && asked->renews && asked->order_length == 0) {
    keep_certificate(now, NULL, 0, 1);
    if (failed == NULL) exchange_key();
    proves = 1;
  }
  if (failed == NULL && proves) ask_for_news(&after);
  result_length = 0;
}

/* Asks the server for what waits. Takes up a root, puts records under a new storage key, renews, where that is asked; then carries out
 * the order that waits and sends the signed report, which it gives; nothing when none waits. A device that was wiped has only its report
 * left to send; one that was reset sends its own first. */
static void fetch_order(uint64_t now) {
  if (kf_wipe_report(&device, result, &result_length) != KF_OK && kf_reset_report(&device, result, &result_length) != KF_OK) {
    static news waiting;
    ask_for_news(&waiting);
    if (failed == NULL) do_beside(now, &waiting);
    if (failed != NULL || waiting.order_length == 0) return;
    carry_out(now, waiting.order, waiting.order_length);
  }
  if (failed != NULL) return;
  REQUIRE(post("/v1/device/orders/outcome", result, result_length).status / 100 == 2, KF_REFUSED);
  DO(kf_reset_told(&device));
}

/* Destroys every key. Gives 1 when everything was erased and read back. */
static void destroy(void) {
  static const uint8_t targets[5] = {KF_DEVICE_KEYS, KF_RATCHET_KEY, KF_IDENTITY_A, KF_IDENTITY_B, KF_STORAGE_KEY};
  size_t i;
  forget();
  result[0] = 1;
  for (i = 0; i < sizeof targets; i++) {
    uint8_t erasure;
    DO(kf_destroy(&device, targets[i], &erasure));
    if (erasure != KF_ERASED_READ_BACK) result[0] = 0;
  }
  result_length = 1;
}

/* Gives the noise state, the place of the device key (24 octets of zeroes when there is none), the certificate in use. */
static void show(void) {
  kf_key_place place;
  kf_status status = kf_device_key_place(&device, &place);
  memset(result, 0, 25);
  result[0] = fuses.noise_state == KF_NOISE_PHYSICAL_ON;
  if (status == KF_OK) {
    write_place(result + 1, &place);
  } else if (status != KF_MISSING) {
    did("kf_device_key_place", status);
  }
  status = kf_identity_certificate(&device, KF_IN_USE, result + 25, sizeof result - 25, &result_length);
  if (status == KF_MISSING) {
    result_length = 0;
  } else if (status != KF_OK) {
    did("kf_identity_certificate", status);
  }
  result_length += 25;
}

/* In a frame of its own, so that nothing of a command stays in the frame of the loop. */
static void __attribute__((noinline)) run(size_t length) {
  fields frame = {command + 1, length - 1};
  const uint8_t *time;
  uint64_t now;
  failed = NULL;
  result_length = 0;
  REQUIRE(length != LINE_TOO_LONG && length > 0 && (time = field_of(&frame, 8)) != NULL, KF_LENGTH);
  now = (uint64_t)number_at(time) << 32 | number_at(time + 4);
  switch (command[0]) {
    case 2: enrol(now, &frame); break;
    case 3: inject(&frame); break;
    case 4: seal(&frame); break;
    case 5: open(&frame); break;
    case 6: exchange_key(); break;
    case 7: obey(now, &frame); break;
    case 8: destroy(); break;
    case 9: show(); break;
    case 10: fetch_order(now); break;
    case 11: keep(&frame); break;
    case 12: recall(&frame); break;
    default: did("the command", KF_ARGUMENT);
  }
}

/* Writes over the stack below: frames that are gone keep what the ciphers of a command left in them. 64 KiB are more than the deepest uses. */
static void __attribute__((noinline)) wipe_stack(void) {
  volatile uint32_t area[16 * 1024];
  for (size_t at = 0; at < sizeof area / sizeof area[0]; at++) area[at] = 0;
}

static void answer_command(void) {
  if (failed == NULL) {
    line_begin(1 + result_length);
    line_write("D", 1);
    line_write(result, result_length);
  } else {
    const char *text = kf_status_text(why);
    size_t name = strcspn(failed, "("); /* of the call, without its arguments */
    line_begin(1 + name + 2 + strlen(text));
    line_write("F", 1);
    line_write(failed, name);
    line_write(": ", 2);
    line_write(text, strlen(text));
  }
}

static void start(size_t length) {
  kf_board board = {{0}, "emulated noise", 8, SECTOR, SECTORS, 4000, 30, KF_ALPHABET_OCTET, 0, KF_MEDIUM_RAW, KF_TAGS_CHECKSUM};
  fields frame = {command, length};
  kf_status status;
  REQUIRE(length != LINE_TOO_LONG && read_fuses(frame), KF_LENGTH);
  memset(command, 0, sizeof command); /* it held the chip's key */
  memcpy(board.device, fuses.device, sizeof board.device);
  board.noise_state = fuses.noise_state;
  status = kf_start(&device, &hooks, &board);
  if (status == KF_UNFORMATTED) {
    /* Blank memory, as it comes from the factory. Never an answer to KF_CORRUPT. */
    DO(kf_format(&hooks, &board));
    status = kf_start(&device, &hooks, &board);
  }
  REQUIRE(did("kf_start", status), status);
  DO(kf_evidence(&device, result));
  result_length = KF_EVIDENCE_OCTETS;
}

int main(void) {
  line_open();
  start(line_receive(command, sizeof command));
  answer_command();
  if (failed != NULL) return 1;
  for (;;) {
    run(line_receive(command, sizeof command));
    wipe_stack();
    answer_command();
  }
}

#include "rocksdb_log.h"
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <rocksdb/c.h>
#include <rocksdb/env.h>

// As RocksDB's db/c.cc has it, which hides it: rocksdb_options_set_info_log() copies the pointer in it.
struct rocksdb_logger_t {
    std::shared_ptr<rocksdb::Logger> rep;
};

namespace {

class Lines final : public rocksdb::Logger {
  public:
    Lines(cairn_rocksdb_line line, void *context, void (*release)(void *))
        : Logger(rocksdb::InfoLogLevel::ERROR_LEVEL), line_(line), context_(context), release_(release) {}
    ~Lines() override { release_(context_); }

    // The options, hundreds of lines at each start.
    void LogHeader(const char *, va_list) override {}

    void Logv(const rocksdb::InfoLogLevel level, const char *format, va_list arguments) override {
        if (level >= GetInfoLogLevel()) Logv(format, arguments);
    }

    void Logv(const char *format, va_list arguments) override {
        char text[1024];
        if (vsnprintf(text, sizeof text, format, arguments) < 0) return;
        size_t count = strlen(text);
        while (count > 0 && text[count - 1] == '\n') text[--count] = 0;
        line_(context_, text);
    }

  protected:
    // Nothing is held.
    rocksdb::Status CloseImpl() override { return rocksdb::Status::OK(); }

  private:
    const cairn_rocksdb_line line_;
    void *const context_;
    void (*const release_)(void *);
};

} // namespace

void cairn_rocksdb_set_log(rocksdb_options_t *options, cairn_rocksdb_line line, void *context, void (*release)(void *)) {
    rocksdb_logger_t logger{std::make_shared<Lines>(line, context, release)};
    rocksdb_options_set_info_log(options, &logger);
}

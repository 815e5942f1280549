// gRPC's side of tools/compare/grpc: answers Describe over mutual TLS until it is told to end.
//
//     server async|callback THREADS CA CERTIFICATE KEY ANSWER_BYTES
//
// async: THREADS completion queues with a thread each, 64 calls waiting on each. callback: gRPC's own threads.
// Prints "ready PORT" once it listens on loopback.
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>

#include <csignal>
#include <memory>
#include <thread>
#include <vector>

#include "common.h"
#include "echo.grpc.pb.h"

namespace {

class AsyncCall {
  public:
    AsyncCall(peer::Echo::AsyncService *service, grpc::ServerCompletionQueue *queue, const std::string *answer)
        : service_(service), queue_(queue), answer_(answer) {
        listen();
    }

    void proceed(bool ok) {
        if (isAnswered_ || !ok) {
            if (!ok && !isAnswered_) return;  // the queue is going down
            context_ = std::make_unique<grpc::ServerContext>();
            listen();
            return;
        }
        peer::Answer answer;
        answer.set_description(*answer_);
        isAnswered_ = true;
        responder_->Finish(answer, grpc::Status::OK, this);
    }

  private:
    void listen() {
        isAnswered_ = false;
        responder_ = std::make_unique<grpc::ServerAsyncResponseWriter<peer::Answer>>(context_.get());
        service_->RequestDescribe(context_.get(), &request_, responder_.get(), queue_, queue_, this);
    }

    peer::Echo::AsyncService *service_;
    grpc::ServerCompletionQueue *queue_;
    const std::string *answer_;
    std::unique_ptr<grpc::ServerContext> context_ = std::make_unique<grpc::ServerContext>();
    std::unique_ptr<grpc::ServerAsyncResponseWriter<peer::Answer>> responder_;
    peer::Request request_;
    bool isAnswered_ = false;
};

class CallbackService final : public peer::Echo::CallbackService {
  public:
    explicit CallbackService(std::string answer) : answer_(std::move(answer)) {}
    grpc::ServerUnaryReactor *Describe(
        grpc::CallbackServerContext *context, const peer::Request *, peer::Answer *answer
    ) override {
        answer->set_description(answer_);
        auto *reactor = context->DefaultReactor();
        reactor->Finish(grpc::Status::OK);
        return reactor;
    }

  private:
    std::string answer_;
};

void waitForTheEnd(const sigset_t &signals) {
    int number;
    sigwait(&signals, &number);
}

}  // namespace

int main(int count, char **arguments) {
    if (count != 7) {
        std::cerr << "usage: server async|callback THREADS CA CERTIFICATE KEY ANSWER_BYTES\n";
        return 64;
    }
    const bool isAsync = std::string(arguments[1]) == "async";
    const int threads = std::stoi(arguments[2]);
    const std::string answer(std::stoi(arguments[6]), 'a');

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);

    grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    options.pem_root_certs = contents(arguments[3]);
    options.pem_key_cert_pairs.push_back({contents(arguments[5]), contents(arguments[4])});

    peer::Echo::AsyncService async;
    CallbackService callback(answer);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::SslServerCredentials(options), &port);
    std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues;
    if (isAsync) {
        builder.RegisterService(&async);
        for (int i = 0; i < threads; i++) queues.push_back(builder.AddCompletionQueue());
    } else {
        builder.RegisterService(&callback);
    }
    auto server = builder.BuildAndStart();
    if (!server) return 1;

    std::vector<std::unique_ptr<AsyncCall>> calls;
    std::vector<std::thread> workers;
    for (auto &queue : queues) {
        for (int i = 0; i < 64; i++) calls.push_back(std::make_unique<AsyncCall>(&async, queue.get(), &answer));
        workers.emplace_back([&queue] {
            void *tag;
            bool ok;
            while (queue->Next(&tag, &ok)) static_cast<AsyncCall *>(tag)->proceed(ok);
        });
    }
    std::cout << "ready " << port << std::endl;
    waitForTheEnd(signals);
    server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
    for (auto &queue : queues) queue->Shutdown();
    for (auto &worker : workers) worker.join();
    return 0;
}
